// What follows the walk through time, from the deltas of all steps, or of a chunk of them, block by
// block of rows:
//   dw = delta^T inputs (outer)    db = sum of delta (sums)    dx = delta W_ih (input_gradient.h)
// and the gradients of the reset states, which each sequence has summed for itself.
#pragma once

#include "cpu/kernels/input_gradient.h"

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
  static constexpr int kWidth = kWidePanel * W;
  static constexpr int kRows = kGradientRows<F>;

  FUSEDRNN_MEMBER ParameterGradients(const BackwardContext<F>& its_context,
                                     typename F::MatrixUnit::Registers& its_registers)
      : context(its_context), registers(its_registers) {}

  const BackwardContext<F>& context;
  typename F::MatrixUnit::Registers& registers;
  const BackwardJob& job = context.job;
  const Problem& p = context.p;
  // dw[(first + i)*units + u, :] (+)= sum over rows of delta[row][blocks[i]][u] * inputs[row, :],
  // for the gates of a product; of several heads, inputs are those of the head of u. A thread
  // computes its share of every gate's units. `input_of(k)`: of the block's row k.
  template <class InputOf>
  FUSEDRNN_MEMBER void outer(const BlockRows<F>& rows, const InputOf& input_of,
                             const ProductShape& product, const int* blocks) const {
    if (rows.count == 0 && !rows.begins) return;
    for_heads(product, [&](const Head& head) FUSEDRNN_LAMBDA {
      outer_of_head(rows, input_of, product, blocks, head);
    });
  }

  // The gradients of vector parameters: sums over rows of blocks of deltas.
  FUSEDRNN_ONCE void sums(const BlockRows<F>& rows) const {
    for_vectors([&](const VectorShape& vector, const VectorShape* same, Range own) FUSEDRNN_LAMBDA {
      if (same != nullptr) return;
      int64_t v = own.begin;
      for (; v + kTogether <= own.end; v += kTogether) sum<kTogether>(rows, vector, v);
      for (; v < own.end; ++v) sum<1>(rows, vector, v);
    });
  }

  // After the last block: what has been summed elsewhere, and what is the same sum as another.
  FUSEDRNN_ONCE void finish() const {
    if constexpr (!kSame<Edge, Real>) {
      finish_product(context.shape.input);
      for (int i = 0; i < context.shape.stage_count; ++i) {
        const StageShape& stage = context.shape.stages[i];
        if (stage.operand != cells::Operand::none) finish_product(stage.product);
      }
    }
    for_vectors([&](const VectorShape& vector, const VectorShape* same, Range own) FUSEDRNN_LAMBDA {
      if (same != nullptr) copy_sum(*same, vector, own);
    });
  }

  // Of a reset state: the sum over sequences, in order.
  FUSEDRNN_ONCE void sum_resets(int s) const {
    if (job.resets[s] == nullptr) return;
    const int64_t units = extent(p, context.shape.states[s].size);
    const Range own = context.share.of_all(blocks_of(units, W));
    for (int64_t v = own.begin; v < own.end; ++v) {
      const Real* const sums = static_cast<const Real*>(job.resets[s]) + v * W;
      V total = V::zero();
      for (int64_t b = 0; b < p.B; ++b) {
        total = total + V::load(sums + job.order.place(b) * job.ld_state);
      }
      total.store(static_cast<Edge*>(context.call.dreset_state[s].data) + v * W,
                  lanes_at<V>(v * W, units));
    }
  }

 private:
  // The thread's tiles of the units of one head of a product's gradient.
  struct Head {
    int64_t number, count;  // of all heads
    Range own;
  };

  template <class Visit>
  FUSEDRNN_MEMBER void for_heads(const ProductShape& product, const Visit& visit) const {
    if (product.weights < 0 || context.call.dparameters[product.weights].data == nullptr) return;
    const int64_t heads = product.of_heads ? job.gradient_heads : 1;
    const int64_t tiles = blocks_of(extent(p, product.units) / heads, kRows);
    const Range own = context.share.of_all(heads * tiles);
    for (int64_t begin = own.begin; begin < own.end;) {
      const int64_t head = begin / tiles, first = head * tiles;
      const int64_t end = own.end < first + tiles ? own.end : first + tiles;
      visit(Head{head, heads, {begin - first, end - first}});
      begin = end;
    }
  }

  template <class InputOf>
  FUSEDRNN_ONCE void outer_of_head(const BlockRows<F>& rows, const InputOf& input_of,
                                   const ProductShape& product, const int* blocks,
                                   const Head& head) const {
    const int64_t all_units = extent(p, product.units), units = all_units / head.count;
    const int64_t columns = extent(p, product.depth) / head.count;
    const int64_t first_unit = head.number * units, first_column = head.number * columns;
    Real* const total = total_of(product);
    const int64_t stride = total_stride(product, columns);
    Packed* packed_inputs = context.template part_of<Packed>(job.scratch);
    Row* packed_deltas = reinterpret_cast<Row*>(packed_inputs + job.block_room * job.block_columns);
    if constexpr (PairUnit::kPresent) registers.configure(kRows);
    for (int64_t column = 0; column < columns; column += job.block_columns) {
      const int64_t left = columns - column;
      const int64_t width = left < job.block_columns ? left : job.block_columns;
      pack_inputs(input_of, rows, first_column + column, width, packed_inputs);
      for (int g = 0; g < product.gates; ++g) {
        for (int64_t tile = head.own.begin; tile < head.own.end; ++tile) {
          const int64_t unit = tile * kRows;
          const int height = static_cast<int>(units - unit < kRows ? units - unit : kRows);
          pack_deltas(rows, blocks[g] * job.delta_block + first_unit + unit, packed_deltas);
          Real* out =
              total + ((product.first + g) * all_units + first_unit + unit) * stride + column;
          for (int64_t n = 0; n < width; n += kWidth) {
            add_tile(packed_deltas, packed_inputs + n * job.block_room, rows.count, out + n, stride,
                     height, width - n, !rows.begins);
          }
        }
      }
    }
  }

  // Sums gather elsewhere where the caller's array is too narrow for them.
  FUSEDRNN_MEMBER Real* total_of(const ProductShape& product) const {
    void* const dw = context.call.dparameters[product.weights].data;
    return static_cast<Real*>(kSame<Edge, Real> ? dw : job.sums[product.weights]);
  }
  FUSEDRNN_MEMBER int64_t total_stride(const ProductShape& product, int64_t columns) const {
    return kSame<Edge, Real> ? context.call.dparameters[product.weights].stride : columns;
  }

  FUSEDRNN_MEMBER void finish_product(const ProductShape& product) const {
    for_heads(product, [&](const Head& head) FUSEDRNN_LAMBDA {
      const Matrix& dw = context.call.dparameters[product.weights];
      const int64_t all_units = extent(p, product.units), units = all_units / head.count;
      const int64_t columns = extent(p, product.depth) / head.count;
      const int64_t end = head.own.end * kRows < units ? head.own.end * kRows : units;
      for (int g = product.first; g < product.first + product.gates; ++g) {
        for (int64_t u = head.own.begin * kRows; u < end; ++u) {
          const int64_t row = g * all_units + head.number * units + u;
          convert_row(total_of(product) + row * columns, columns, row_of<Edge>(dw, row));
        }
      }
    });
  }

  // Calls visit(vector, one of the same sum or null, the thread's vectors of units) for each that
  // is wanted.
  template <class Visit>
  FUSEDRNN_MEMBER void for_vectors(const Visit& visit) const {
    const CellShape& shape = context.shape;
    for (int k = 0; k < shape.vector_gradient_count; ++k) {
      const VectorShape& vector = shape.vector_gradients[k];
      if (context.call.dparameters[vector.parameter].data == nullptr) continue;
      visit(vector, summed_before(k), context.share.of_all(blocks_of(extent(p, vector.units), W)));
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

  // Where a sum goes; between blocks it waits where those of matrices do.
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
      result_of(to)[u] = result_of(from)[u];
    }
  }

  // Vectors that are summed side by side: rows lie pages apart.
  static constexpr int kTogether = 4;

  // A block's sum of N vectors of units from number v on, added to those before it. What rows hold
  // beyond the last unit is read, not stored.
  template <int N>
  FUSEDRNN_ONCE void sum(const BlockRows<F>& rows, const VectorShape& vector, int64_t v) const {
    const int64_t units = extent(p, vector.units), column = vector.delta * job.delta_block + v * W;
    Real* const waiting = waiting_of(vector) + v * W;
    // Panels of cells whose saved vectors are factors are of one vector.
    const int64_t saved_panel = int64_t{context.shape.saved} * W;
    const Real* const factors = vector.saved < 0 ? nullptr
                                                 : static_cast<const Real*>(job.kept.saved) +
                                                       context.kept_slot(context.chunk.begin) *
                                                           p.B * context.saved_numbers() +
                                                       v * saved_panel + vector.saved * W;
    int lanes[N];
    V sums[N];
    FUSEDRNN_UNROLL
    for (int j = 0; j < N; ++j) {
      lanes[j] = lanes_at<V>((v + j) * W, units);
      sums[j] = V::zero();
    }
    for (int64_t k = 0; k < rows.count; ++k) {
      if (rows.deltas[k] == nullptr) continue;
      const Row* const src = rows.deltas[k] + column;
      if (vector.saved < 0) {
        FUSEDRNN_UNROLL
        for (int j = 0; j < N; ++j) sums[j] = sums[j] + V::load(src + j * W);
      } else {
        const Real* const factor = factors + rows.places[k] * context.saved_numbers();
        FUSEDRNN_UNROLL
        for (int j = 0; j < N; ++j) {
          sums[j] = sums[j] + V::load(src + j * W) * V::load(factor + j * saved_panel);
        }
      }
    }
    FUSEDRNN_UNROLL
    for (int j = 0; j < N; ++j) {
      const V total = (rows.begins ? V::zero() : V::load(waiting + j * W, lanes[j])) + sums[j];
      if (rows.ends) {
        total.store(result_of(vector) + (v + j) * W, lanes[j]);
      } else {
        total.store(waiting + j * W, lanes[j]);
      }
    }
  }

  // A block's rows, columns [column, column + width), into panels [panel][k / K][kWidth][K]; rows
  // that do not exist or fill up the last group of k are zero.
  template <class InputOf>
  void pack_inputs(const InputOf& input_of, const BlockRows<F>& rows, int64_t column, int64_t width,
                   Packed* packed) const {
    for (int64_t k = 0; k < round_up(rows.count, BlockRows<F>::kTogether); k += K) {
      decltype(input_of(0)) group[K];
      for (int i = 0; i < K; ++i) {
        const bool read =
            BlockRows<F>::kTogether == 1 || (k + i < rows.count && rows.deltas[k + i] != nullptr);
        group[i] = read ? input_of(k + i) + column : nullptr;
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

  // Columns from one on: [k / K][kRows][K], or what a matrix unit takes, zeros as above. It takes
  // kRows columns even where fewer are wanted: rows have as much padding.
  void pack_deltas(const BlockRows<F>& rows, int64_t column, Row* packed) const {
    if constexpr (PairUnit::kPresent) {
      PairUnit::pack_transposed(rows.deltas, column, rows.count, packed);
    } else if constexpr (K == 1) {
      for (int64_t k = 0; k < rows.count; ++k, packed += kRows) {
        const Row* const src = rows.deltas[k] + column;
        __builtin_memcpy(packed, src, kRows * sizeof *src);
        prefetch_far(src + 2 * kRows - 1);  // of the next tile: a block fills the cache
      }
    } else {
      const Row zeros[kMaxTileRows] = {};
      for (int64_t k = 0; k < rows.count; k += K, packed += kRows * K) {
        const Row* group[K];
        FUSEDRNN_UNROLL
        for (int i = 0; i < K; ++i) {
          const bool read = k + i < rows.count && rows.deltas[k + i] != nullptr;
          group[i] = read ? rows.deltas[k + i] + column : zeros;
        }
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
  const ParameterGradients<F> gradients(context, registers);
  const CellShape& shape = context.shape;
  const Links& links = context.job.links;
  const bool in_walk = links.own != nullptr && links.steps > 0;
  const bool with_blocks =
      context.call.dx.data != nullptr && !in_walk && links.dx_before == nullptr;
  const int64_t ld = context.job.ld_state, slot = context.p.B * ld, begin = context.chunk.begin;
  for (int64_t i = 0; i < row_blocks(context); ++i) {
    const BlockRows<F> rows(context, i);
    if (with_blocks) {  // first, since others may wait for it
      input_gradient(context, registers, rows);
      context.report_done(i + 1);
    }
    gradients.outer(
        rows, [&](int64_t k) FUSEDRNN_LAMBDA { return rows.x[k]; }, shape.input, shape.input_delta);
    for (int stage = 0; stage < shape.stage_count; ++stage) {
      const ProductShape& product = shape.stages[stage].product;
      const cells::Operand operand = shape.stages[stage].operand;
      if (operand == cells::Operand::none) continue;
      int blocks[kMaxGates];
      for (int g = 0; g < product.gates; ++g) blocks[g] = shape.stages[stage].first_delta + g;
      // Those of h lie by slot, what a stage passed on by time.
      const bool of_h = operand == cells::Operand::h;
      const int64_t first = context.kept_slot(of_h ? begin + context.p.reverse : begin);
      const Row* const operands =
          static_cast<const Row*>(context.job.kept.operands[stage]) + first * slot;
      gradients.outer(
          rows, [&](int64_t k) FUSEDRNN_LAMBDA { return operands + rows.places[k] * ld; }, product,
          blocks);
    }
    gradients.sums(rows);
  }
  if (links.dx_before != nullptr) input_gradient_in_turn(context, registers);
  if (context.chunk.last) gradients.finish();
}

// Of the reset states that are wanted, once all steps have been walked.
template <class F>
FUSEDRNN_ONCE void reset_gradients(const BackwardContext<F>& context,
                                   typename F::MatrixUnit::Registers& registers) {
  const ParameterGradients<F> gradients(context, registers);
  for (int s = 0; s < context.shape.state_count; ++s) gradients.sum_resets(s);
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
