// What follows the walk through time, from the deltas of all steps, or of a chunk of them:
//   dw = delta^T inputs (outer)    db = sum of delta (sum)    dx = delta W_ih (input)
// and the gradients of the reset states, which each sequence has summed for itself.
// Rows (t,b) of the deltas are summed in blocks, within one in the order of time and block by block
// in the order of the walk, whatever the threads and the chunks, which begin with a block. Rows of
// steps that do not exist (t >= lengths[b]) have zero deltas; what x holds there may be NaN and
// is not read.
#pragma once

#include "cpu/kernels/backward_context.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Units whose rows of dw a tile computes.
template <class F>
constexpr int kGradientRows =
    F::MatrixUnit::kPresent ? F::MatrixUnit::kRows : tile_rows<F>(kWidePanel);

template <class F>
struct ParameterGradients {
  using Edge = typename F::Edge;
  using Real = typename F::Real;
  using Row = typename F::Row;
  using V = typename F::V;
  // Both operands of the products with x and h are rows, converted as they are packed.
  using Pair = typename F::Pair;
  using Packed = typename Pair::Panel;
  using PairUnit = MatrixUnit<Row, Row>;
  static constexpr int W = V::width;
  static constexpr int K = Pair::kDepth;
  static constexpr int kDepthUnit = K > PairUnit::kDepth ? K : PairUnit::kDepth;
  static constexpr int kWidth = kWidePanel * W;
  static constexpr int kRows = kGradientRows<F>;

  const BackwardContext<F>& context;
  typename F::MatrixUnit::Registers& registers;
  const BackwardJob& job = context.job;
  const Problem& p = context.p;
  const Chunk& chunk = context.chunk;
  const int64_t chunk_rows = chunk.steps() * p.B;

  // Rows are counted from the chunk's first one.
  FUSEDRNN_MEMBER const Row* delta(int64_t row) const {
    return context.delta_row(chunk.begin, 0) + row * job.ld_delta;
  }
  FUSEDRNN_MEMBER bool exists(int64_t row) const {
    return is_valid(context.call.flags, chunk.begin * p.B + row);
  }
  FUSEDRNN_MEMBER int64_t row_blocks() const {
    return blocks_of(chunk.steps(), job.block_steps) * job.step_blocks;
  }
  // Number `i` of the chunk, in the order of the walk.
  FUSEDRNN_MEMBER Range row_block(int64_t i) const {
    const int64_t in_time = p.reverse ? i : row_blocks() - 1 - i;
    const int64_t step = in_time / job.step_blocks * job.block_steps;
    const int64_t row = step * p.B + in_time % job.step_blocks * job.block_rows;
    const int64_t steps = chunk.steps() - step;
    const int64_t end = (step + (steps < job.block_steps ? steps : job.block_steps)) * p.B;
    return {row, end - row < job.block_rows ? end : row + job.block_rows};
  }

  // dw[(first + i)*units + u, :] = sum over rows of delta[row][blocks[i]][u] * inputs[row, :], for
  // the gates of a product; of several heads, inputs are those of the head of u. A thread computes
  // its share of every gate's units. `inputs`: those of the chunk.
  template <class Number>
  FUSEDRNN_MEMBER void outer(const Sequence& inputs, const ProductShape& product,
                             const int* blocks) const {
    if (product.weights < 0 || context.call.dparameters[product.weights].data == nullptr) return;
    const int64_t heads = product.of_heads ? job.gradient_heads : 1;
    const int64_t tiles = blocks_of(extent(p, product.units) / heads, kRows);
    const Range own = context.share.of_all(heads * tiles);
    for (int64_t begin = own.begin; begin < own.end;) {
      const int64_t head = begin / tiles, first = head * tiles;
      const int64_t end = own.end < first + tiles ? own.end : first + tiles;
      outer_of_head<Number>(inputs, product, blocks, head, heads, {begin - first, end - first});
      begin = end;
    }
  }

  // `own`: the thread's tiles of its units.
  template <class Number>
  FUSEDRNN_ONCE void outer_of_head(const Sequence& inputs, const ProductShape& product,
                                   const int* blocks, int64_t head, int64_t heads,
                                   Range own) const {
    const Matrix& dw = context.call.dparameters[product.weights];
    const int64_t all_units = extent(p, product.units), units = all_units / heads;
    const int64_t columns = extent(p, product.depth) / heads;
    const int64_t first_unit = head * units, first_column = head * columns;
    // Sums gather elsewhere where the caller's array is too narrow for them.
    Real* total = static_cast<Real*>(kSame<Edge, Real> ? dw.data : job.sums[product.weights]);
    const int64_t stride = kSame<Edge, Real> ? dw.stride : columns;
    Packed* packed_inputs = context.template part_of<Packed>(job.scratch);
    Row* packed_deltas = reinterpret_cast<Row*>(packed_inputs + job.block_room * job.block_columns);
    if constexpr (PairUnit::kPresent) registers.configure(kRows);
    for (int64_t column = 0; column < columns; column += job.block_columns) {
      const int64_t left = columns - column;
      const int64_t width = left < job.block_columns ? left : job.block_columns;
      for (int64_t i = 0; i < row_blocks(); ++i) {
        const int64_t row = row_block(i).begin, depth = row_block(i).size();
        pack_inputs<Number>(inputs, row, depth, first_column + column, width, packed_inputs);
        for (int g = 0; g < product.gates; ++g) {
          for (int64_t tile = own.begin; tile < own.end; ++tile) {
            const int64_t unit = tile * kRows;
            const int height = static_cast<int>(units - unit < kRows ? units - unit : kRows);
            pack_deltas(delta(row) + blocks[g] * job.delta_block + first_unit + unit, depth,
                        packed_deltas);
            Real* out =
                total + ((product.first + g) * all_units + first_unit + unit) * stride + column;
            for (int64_t n = 0; n < width; n += kWidth) {
              add_tile(packed_deltas, packed_inputs + n * job.block_room, depth, out + n, stride,
                       height, width - n, i > 0 || !chunk.first);
            }
          }
        }
      }
    }
    if (!kSame<Edge, Real> && chunk.last) {
      const int64_t end = own.end * kRows < units ? own.end * kRows : units;
      for (int g = product.first; g < product.first + product.gates; ++g) {
        for (int64_t u = own.begin * kRows; u < end; ++u) {
          const int64_t row = g * all_units + first_unit + u;
          convert_row(total + row * stride, columns, static_cast<Edge*>(dw.data) + row * dw.stride);
        }
      }
    }
  }

  // The gradients of vector parameters: sums over rows of blocks of deltas.
  FUSEDRNN_ONCE void sums() const {
    const CellShape& shape = context.shape;
    for (int k = 0; k < shape.vector_gradient_count; ++k) {
      const VectorShape& vector = shape.vector_gradients[k];
      if (context.call.dparameters[vector.parameter].data == nullptr) continue;
      const Range own = context.share.of_all(blocks_of(extent(p, vector.units), W));
      if (const VectorShape* same = summed_before(k); same != nullptr) {
        copy_sum(*same, vector, own);
        continue;
      }
      int64_t v = own.begin;
      for (; v + kTogether <= own.end; v += kTogether) sum<kTogether>(vector, v);
      for (; v < own.end; ++v) sum<1>(vector, v);
    }
  }

  // One of the same sum, as that of b_hh often is that of b_ih.
  FUSEDRNN_MEMBER const VectorShape* summed_before(int k) const {
    const VectorShape* const all = context.shape.vector_gradients;
    for (int i = 0; i < k; ++i) {
      if (all[i].delta == all[k].delta && all[i].saved == all[k].saved &&
          context.call.dparameters[all[i].parameter].data != nullptr) {
        return &all[i];
      }
    }
    return nullptr;
  }

  // Where a block's sum goes; between chunks it waits where those of matrices do.
  FUSEDRNN_MEMBER Edge* result_of(const VectorShape& vector) const {
    return static_cast<Edge*>(context.call.dparameters[vector.parameter].data) +
           vector.block * extent(p, vector.units);
  }
  FUSEDRNN_MEMBER Real* waiting_of(const VectorShape& vector) const {
    void* const dst = context.call.dparameters[vector.parameter].data;
    return static_cast<Real*>(kSame<Edge, Real> ? dst : job.sums[vector.parameter]) +
           vector.block * extent(p, vector.units);
  }
  FUSEDRNN_MEMBER void copy_sum(const VectorShape& from, const VectorShape& to, Range own) const {
    const int64_t end = own.end * W, units = extent(p, to.units);
    for (int64_t u = own.begin * W; u < end && u < units; ++u) {
      if (chunk.last) {
        result_of(to)[u] = result_of(from)[u];
      } else {
        waiting_of(to)[u] = waiting_of(from)[u];
      }
    }
  }

  // Vectors that are summed side by side: rows lie pages apart.
  static constexpr int kTogether = 4;

  // N vectors of units from number v on; what rows hold beyond the last unit is read, not stored.
  template <int N>
  FUSEDRNN_ONCE void sum(const VectorShape& vector, int64_t v) const {
    const int64_t units = extent(p, vector.units), saved_ld = context.saved_numbers();
    Real* const waiting = waiting_of(vector) + v * W;
    // Panels of cells whose saved vectors are factors are of one vector.
    const int64_t saved_panel = int64_t{context.shape.saved} * W;
    int lanes[N];
    V totals[N];
    FUSEDRNN_UNROLL
    for (int j = 0; j < N; ++j) {
      lanes[j] = lanes_at<V>((v + j) * W, units);
      totals[j] = chunk.first ? V::zero() : V::load(waiting + j * W, lanes[j]);
    }
    for (int64_t i = 0; i < row_blocks(); ++i) {
      const Range rows = row_block(i);
      V sums[N];
      FUSEDRNN_UNROLL
      for (int j = 0; j < N; ++j) sums[j] = V::zero();
      const Row* src = delta(rows.begin) + vector.delta * job.delta_block + v * W;
      if (vector.saved < 0) {
        for (int64_t k = 0; k < rows.size(); ++k, src += job.ld_delta) {
          FUSEDRNN_UNROLL
          for (int j = 0; j < N; ++j) sums[j] = sums[j] + V::load(src + j * W);
        }
      } else {
        const Real* factor = static_cast<const Real*>(job.kept.saved) +
                             (context.kept_slot(chunk.begin) * p.B + rows.begin) * saved_ld +
                             v * saved_panel + vector.saved * W;
        for (int64_t k = 0; k < rows.size(); ++k, src += job.ld_delta, factor += saved_ld) {
          if (!exists(rows.begin + k)) continue;  // nothing has been saved
          FUSEDRNN_UNROLL
          for (int j = 0; j < N; ++j) {
            sums[j] = sums[j] + V::load(src + j * W) * V::load(factor + j * saved_panel);
          }
        }
      }
      FUSEDRNN_UNROLL
      for (int j = 0; j < N; ++j) totals[j] = totals[j] + sums[j];
    }
    FUSEDRNN_UNROLL
    for (int j = 0; j < N; ++j) {
      if (chunk.last) {
        totals[j].store(result_of(vector) + (v + j) * W, lanes[j]);
      } else {
        totals[j].store(waiting + j * W, lanes[j]);
      }
    }
  }

  // Of a reset state: the sum over sequences, in order.
  FUSEDRNN_ONCE void sum_resets(int s) const {
    if (job.resets[s] == nullptr) return;
    const int64_t units = extent(p, context.shape.states[s].size);
    const Range own = context.share.of_all(blocks_of(units, W));
    for (int64_t v = own.begin; v < own.end; ++v) {
      const Real* src = static_cast<const Real*>(job.resets[s]) + v * W;
      V total = V::zero();
      for (int64_t b = 0; b < p.B; ++b, src += job.ld_state) total = total + V::load(src);
      total.store(static_cast<Edge*>(context.call.dreset_state[s].data) + v * W,
                  lanes_at<V>(v * W, units));
    }
  }

  // dx[row, :] (+)= delta[row, the gradients of a] packed, panels of inputs.
  FUSEDRNN_ONCE void input() const {
    const int64_t panels = blocks_of(p.I, kWidth);
    const bool by_panel = panels >= context.share.threads;
    for_products<F>(registers, p.T * p.B, kWidePanel, Inputs{*this},
                    by_panel ? context.share.of_all(panels) : Range{0, panels},
                    by_panel ? Range{0, chunk_rows} : context.share.of_all(chunk_rows));
  }

 private:
  struct Inputs {
    const ParameterGradients& gradients;

    void run(const Tile& tile) const {
      const BackwardJob& job = gradients.job;
      alignas(64) Real sums[kTileSums<F, kWidePanel>];
      Product<F> product;
      product.depth = gradients.context.delta_depth(gradients.context.shape.input);
      product.set_weights(static_cast<const typename F::Panel*>(job.input), 0,
                          product.depth * kWidth, tile);
      product.out = sums;
      product.out_row = kWidth;
      product.out_panel = tile.rows * kWidth;
      product.set_rows(gradients.delta(tile.first_row()), job.ld_delta);
      run_product(product, kWidePanel, tile);
      const Real* sum = sums + tile.repeated * kWidth;
      for (int64_t panel = tile.panel; panel < tile.panel + tile.panels; ++panel) {
        for (int64_t row = tile.row; row < tile.row + tile.rows; ++row, sum += kWidth) {
          store(sum, panel * kWidth, row);
        }
      }
    }

    FUSEDRNN_MEMBER void store(const Real* sum, int64_t column, int64_t row) const {
      const BackwardCall& call = gradients.context.call;
      const int64_t B = gradients.p.B, columns = gradients.p.I;
      Edge* dst = static_cast<Edge*>(call.dx.data) +
                  (gradients.chunk.begin + row / B) * call.dx.t_stride + row % B * call.dx.b_stride;
      const bool exists = gradients.exists(row);
      if (!exists && call.accumulate_dx) return;
      for (int v = 0; v < kWidePanel && column < columns; ++v, column += W) {
        const int n = static_cast<int>(columns - column < W ? columns - column : W);
        V d = exists ? V::load(sum + v * W) : V::zero();
        if (call.accumulate_dx) d = d + V::load(dst + column, n);
        d.store(dst + column, n);
      }
    }
  };

  // Rows [row, row + depth), columns [column, column + width) into panels
  // [panel][k / K][kWidth][K]; rows that fill up the last group of k are zero.
  template <class Number>
  void pack_inputs(const Sequence& inputs, int64_t row, int64_t depth, int64_t column,
                   int64_t width, Packed* packed) const {
    int64_t t = row / p.B, b = row % p.B;
    for (int64_t k = 0; k < round_up(depth, kDepthUnit); k += K) {
      const Number* group[K];
      for (int i = 0; i < K; ++i) {
        const bool read = k + i < depth && exists(row + k + i);
        group[i] = !read ? nullptr
                         : static_cast<const Number*>(inputs.data) + t * inputs.t_stride +
                               b * inputs.b_stride + column;
        if (++b == p.B) {
          b = 0;
          ++t;
        }
      }
      for (int64_t n = 0; n < width; n += kWidth) {
        pack_input_group(group, n, width, packed + n * job.block_room + k * kWidth);
      }
    }
  }

  template <class Number>
  static FUSEDRNN_MEMBER void pack_input_group(const Number* const* group, int64_t column,
                                               int64_t columns, Packed* dst) {
    FUSEDRNN_UNROLL
    for (int v = 0; v < kWidePanel; ++v) {
      V rows[K];
      FUSEDRNN_UNROLL
      for (int i = 0; i < K; ++i) {
        rows[i] = load_columns<V>(group[i], column + v * W, columns);
        if constexpr (kSame<Number, Edge>) rows[i] = F::round_operand(rows[i]);
      }
      Pair::pack(rows, dst + v * W * K);
    }
  }

  // [k / K][kRows][K], or what a matrix unit takes; rows beyond `depth` are zero. It takes kRows
  // columns even where fewer are wanted: rows have as much padding.
  void pack_deltas(const Row* src, int64_t depth, Row* packed) const {
    const int64_t stride = job.ld_delta;
    if constexpr (PairUnit::kPresent) {
      PairUnit::pack_transposed(src, stride, depth, packed);
    } else if constexpr (K == 1) {
      for (int64_t k = 0; k < depth; ++k, src += stride, packed += kRows) {
        FUSEDRNN_UNROLL
        for (int m = 0; m < kRows; ++m) packed[m] = src[m];
      }
    } else {
      const Row zeros[kMaxTileRows] = {};
      for (int64_t k = 0; k < depth; k += K, packed += kRows * K) {
        const Row* group[K];
        FUSEDRNN_UNROLL
        for (int i = 0; i < K; ++i, src += stride) group[i] = k + i < depth ? src : zeros;
        Pair::template interleave<kRows>(group, packed);
      }
    }
  }

  static FUSEDRNN_MEMBER void convert_row(const Real* src, int64_t columns, Edge* dst) {
    for (int64_t i = 0; i < columns; i += W) {
      const int n = static_cast<int>(columns - i < W ? columns - i : W);
      V::load(src + i, n).store(dst + i, n);
    }
  }

  FUSEDRNN_MEMBER void add_tile(const Row* a, const Packed* b, int64_t depth, Real* out,
                                int64_t stride, int height, int64_t columns, bool add) const {
    if constexpr (PairUnit::kPresent) {
      PairUnit::add_block(a, b, depth, out, stride, height, columns, add);
    } else if (columns > 3 * W) {
      add_tile_of<4>(a, b, depth, out, stride, height, columns, add);
    } else if (columns > 2 * W) {
      add_tile_of<3>(a, b, depth, out, stride, height, columns, add);
    } else if (columns > W) {
      add_tile_of<2>(a, b, depth, out, stride, height, columns, add);
    } else {
      add_tile_of<1>(a, b, depth, out, stride, height, columns, add);
    }
  }

  // out[m][n] (+)= sum over k of a[k][m] * b[k][n]
  template <int N>
  FUSEDRNN_ONCE static void add_tile_of(const Row* a, const Packed* b, int64_t depth, Real* out,
                                        int64_t stride, int height, int64_t columns, bool add) {
    V acc[kRows][N];
    FUSEDRNN_UNROLL
    for (int m = 0; m < kRows; ++m) {
      FUSEDRNN_UNROLL
      for (int n = 0; n < N; ++n) {
        acc[m][n] = V::zero();
        // The sums so far come from memory, while the products run.
        if (add) prefetch_far(out + m * stride + n * W);
      }
    }
    for (int64_t k = 0; k < depth; k += K, a += kRows * K, b += kWidth * K) {
      typename Pair::Weights x[N];
      FUSEDRNN_UNROLL
      for (int n = 0; n < N; ++n) x[n] = Pair::load(b + n * W * K);
      FUSEDRNN_UNROLL
      for (int m = 0; m < kRows; ++m) {
        const typename Pair::Operand d = Pair::broadcast(a + m * K);
        FUSEDRNN_UNROLL
        for (int n = 0; n < N; ++n) acc[m][n] = Pair::add(acc[m][n], d, x[n]);
      }
    }
    const int last = static_cast<int>(columns < N * W ? columns - (N - 1) * W : W);
    FUSEDRNN_UNROLL
    for (int m = 0; m < kRows; ++m) {
      if (m >= height) break;
      FUSEDRNN_UNROLL
      for (int n = 0; n < N; ++n) {
        Real* dst = out + m * stride + n * W;
        const int count = n + 1 < N ? W : last;
        if (add) acc[m][n] = acc[m][n] + V::load(dst, count);
        acc[m][n].store(dst, count);
      }
    }
  }
};

// The thread's share of what a chunk brings to the gradients of all parameters that are wanted, and
// of its gradient of x.
template <class F>
FUSEDRNN_ONCE void add_parameter_gradients(const BackwardContext<F>& context,
                                           typename F::MatrixUnit::Registers& registers) {
  using Row = typename F::Row;
  const ParameterGradients<F> gradients{context, registers};
  const CellShape& shape = context.shape;
  const int64_t ld = context.job.ld_state, slot = context.p.B * ld, begin = context.chunk.begin;
  Sequence x = context.call.x;
  x.data = static_cast<typename F::Edge*>(x.data) + begin * x.t_stride;
  gradients.template outer<typename F::Edge>(x, shape.input, shape.input_delta);
  for (int i = 0; i < shape.stage_count; ++i) {
    const StageShape& stage = shape.stages[i];
    if (stage.operand == cells::Operand::none) continue;
    int blocks[kMaxGates];
    for (int g = 0; g < stage.product.gates; ++g) blocks[g] = stage.first_delta + g;
    // Those of h lie by slot, what a stage passed on by time.
    const bool of_h = stage.operand == cells::Operand::h;
    const int64_t first = context.kept_slot(of_h ? begin + context.p.reverse : begin);
    gradients.template outer<Row>(
        {static_cast<Row*>(context.job.kept.operands[i]) + first * slot, slot, ld}, stage.product,
        blocks);
  }
  gradients.sums();
  if (context.call.dx.data != nullptr) gradients.input();
}

// Of the reset states that are wanted, once all steps have been walked.
template <class F>
FUSEDRNN_ONCE void reset_gradients(const BackwardContext<F>& context,
                                   typename F::MatrixUnit::Registers& registers) {
  const ParameterGradients<F> gradients{context, registers};
  for (int s = 0; s < context.shape.state_count; ++s) gradients.sum_resets(s);
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
