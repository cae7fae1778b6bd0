// What follows the walk through time, from the deltas of all steps, or of a chunk of them:
//   dw = delta^T inputs (outer)    db = sum of delta (sum)    dx = delta W_ih (input)
// and the gradients of the reset states, which each sequence has summed for itself.
// Rows (t,b) of the deltas are summed in blocks, within one in the order of time and block by block
// in the order of the walk, whatever the threads and the chunks, which begin with a block. Rows of
// steps that do not exist (t >= lengths[b]) are left out; of those neither x, which may be NaN, nor
// deltas are read.
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

  FUSEDRNN_MEMBER ParameterGradients(const BackwardContext<F>& its_context,
                                     typename F::MatrixUnit::Registers& its_registers)
      : context(its_context), registers(its_registers) {}

  const BackwardContext<F>& context;
  typename F::MatrixUnit::Registers& registers;
  const BackwardJob& job = context.job;
  const Problem& p = context.p;
  const Chunk& chunk = context.chunk;
  const Flags flags{context.call.flags, {}};  // of all rows (t,b)

  FUSEDRNN_MEMBER int64_t row_blocks() const {
    return blocks_of(chunk.steps(), job.block_steps) * job.step_blocks;
  }
  // Number `i` of the chunk, in the order of the walk; rows count from the chunk's first one.
  FUSEDRNN_MEMBER Range row_block(int64_t i) const {
    const int64_t in_time = p.reverse ? i : row_blocks() - 1 - i;
    const int64_t step = in_time / job.step_blocks * job.block_steps;
    const int64_t row = step * p.B + in_time % job.step_blocks * job.block_rows;
    const int64_t steps = chunk.steps() - step;
    const int64_t end = (step + (steps < job.block_steps ? steps : job.block_steps)) * p.B;
    return {row, end - row < job.block_rows ? end : row + job.block_rows};
  }

  // What a block consists of: groups of kDepthUnit rows that are multiplied together, without those
  // of which no row exists.
  struct BlockRows {
    static constexpr int64_t kMost = kBlockRows;
    int64_t number = -1, count = 0;
    const Row* deltas[kMost];  // null: the row does not exist
    int64_t times[kMost], sequences[kMost];
  };
  BlockRows block_rows;

  FUSEDRNN_MEMBER const BlockRows& rows_of_block(int64_t i) {
    if (block_rows.number != i) find_rows(i);
    return block_rows;
  }
  FUSEDRNN_ONCE void find_rows(int64_t i) {
    const Range rows = row_block(i);
    int64_t t = chunk.begin + rows.begin / p.B, b = rows.begin % p.B, count = 0;
    for (int64_t group = rows.begin; group < rows.end; group += kDepthUnit) {
      const int64_t end = rows.end - group < kDepthUnit ? rows.end : group + kDepthUnit;
      const int64_t first = count;
      bool any = false;
      for (int64_t row = group; row < end; ++row, ++count) {
        const bool exists = flags.valid(t * p.B + b);
        any |= exists;
        block_rows.deltas[count] = exists ? context.delta_at_place(t, job.order.place(b)) : nullptr;
        block_rows.times[count] = t;
        block_rows.sequences[count] = b;
        if (++b == p.B) b = 0, ++t;
      }
      if (!any) count = first;
    }
    block_rows.number = i;
    block_rows.count = count;
  }

  // An operand of these products, from a time on, by place in memory or by number of the sequence.
  struct Inputs {
    Sequence rows;
    int64_t first_time;
    bool by_place;
  };

  // dw[(first + i)*units + u, :] = sum over rows of delta[row][blocks[i]][u] * inputs[row, :], for
  // the gates of a product; of several heads, inputs are those of the head of u. A thread computes
  // its share of every gate's units.
  template <class Number>
  FUSEDRNN_MEMBER void outer(const Inputs& inputs, const ProductShape& product, const int* blocks) {
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
  FUSEDRNN_ONCE void outer_of_head(const Inputs& inputs, const ProductShape& product,
                                   const int* blocks, int64_t head, int64_t heads, Range own) {
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
        const BlockRows& rows = rows_of_block(i);
        const bool begins = i == 0 && chunk.first;
        if (rows.count == 0 && !begins) continue;
        pack_inputs<Number>(inputs, rows, first_column + column, width, packed_inputs);
        for (int g = 0; g < product.gates; ++g) {
          for (int64_t tile = own.begin; tile < own.end; ++tile) {
            const int64_t unit = tile * kRows;
            const int height = static_cast<int>(units - unit < kRows ? units - unit : kRows);
            pack_deltas(rows, blocks[g] * job.delta_block + first_unit + unit, packed_deltas);
            Real* out =
                total + ((product.first + g) * all_units + first_unit + unit) * stride + column;
            for (int64_t n = 0; n < width; n += kWidth) {
              add_tile(packed_deltas, packed_inputs + n * job.block_room, rows.count, out + n,
                       stride, height, width - n, !begins);
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
  FUSEDRNN_ONCE void sums() {
    for (int64_t i = 0; i < row_blocks(); ++i) {
      const BlockRows& rows = rows_of_block(i);
      const bool begins = i == 0 && chunk.first, ends = i + 1 == row_blocks() && chunk.last;
      for_vector_gradients([&](const VectorShape& vector, const VectorShape* same, Range own)
                               FUSEDRNN_LAMBDA {
                                 if (same != nullptr) return;
                                 int64_t v = own.begin;
                                 for (; v + kTogether <= own.end; v += kTogether) {
                                   sum<kTogether>(vector, v, rows, begins, ends);
                                 }
                                 for (; v < own.end; ++v) sum<1>(vector, v, rows, begins, ends);
                               });
    }
    if (!chunk.last) return;
    for_vector_gradients([&](const VectorShape& vector, const VectorShape* same, Range own)
                             FUSEDRNN_LAMBDA {
                               if (same != nullptr) copy_sum(*same, vector, own);
                             });
  }

  // Calls visit(vector, one of the same sum or null, the thread's vectors of units) for each that
  // is wanted.
  template <class Visit>
  FUSEDRNN_MEMBER void for_vector_gradients(const Visit& visit) const {
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
  FUSEDRNN_ONCE void sum(const VectorShape& vector, int64_t v, const BlockRows& rows, bool begins,
                         bool ends) const {
    const int64_t units = extent(p, vector.units), column = vector.delta * job.delta_block + v * W;
    Real* const waiting = waiting_of(vector) + v * W;
    // Panels of cells whose saved vectors are factors are of one vector.
    const int64_t saved_panel = int64_t{context.shape.saved} * W;
    const Real* const factors =
        static_cast<const Real*>(job.kept.saved) + v * saved_panel + vector.saved * W;
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
        const Real* const factor = factors + saved_offset(rows, k);
        FUSEDRNN_UNROLL
        for (int j = 0; j < N; ++j) {
          sums[j] = sums[j] + V::load(src + j * W) * V::load(factor + j * saved_panel);
        }
      }
    }
    FUSEDRNN_UNROLL
    for (int j = 0; j < N; ++j) {
      const V total = (begins ? V::zero() : V::load(waiting + j * W, lanes[j])) + sums[j];
      if (ends) {
        total.store(result_of(vector) + (v + j) * W, lanes[j]);
      } else {
        total.store(waiting + j * W, lanes[j]);
      }
    }
  }

  FUSEDRNN_MEMBER int64_t saved_offset(const BlockRows& rows, int64_t k) const {
    const int64_t place = job.order.place(rows.sequences[k]);
    return (context.kept_slot(rows.times[k]) * p.B + place) * context.saved_numbers();
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

  // dx[row, :] (+)= delta[row, the gradients of a] packed, panels of inputs.
  FUSEDRNN_ONCE void input() {
    const int64_t panels = blocks_of(p.I, kWidth);
    const bool by_panel = panels >= context.share.threads;
    const Range own = by_panel ? context.share.of_all(panels) : Range{0, panels};
    for (int64_t i = 0; i < row_blocks(); ++i) {
      const InputRows rows(*this, i);
      for_products<F>(registers, p.T * p.B, kWidePanel, InputTiles{*this, rows}, own,
                      by_panel ? Range{0, rows.count} : context.share.of_all(rows.count));
      if (flags.data != nullptr && !context.call.accumulate_dx) clear_missing(row_block(i));
    }
  }

 private:
  FUSEDRNN_MEMBER Edge* dx_row(int64_t t, int64_t b) const {
    const Sequence& dx = context.call.dx;
    return static_cast<Edge*>(dx.data) + t * dx.t_stride + b * dx.b_stride;
  }

  // dx of the thread's share of a block's rows that do not exist.
  FUSEDRNN_ONCE void clear_missing(Range block) const {
    const Range own = context.share.of_all(block.size());
    for (int64_t row = block.begin + own.begin; row < block.begin + own.end; ++row) {
      const int64_t t = chunk.begin + row / p.B, b = row % p.B;
      if (flags.valid(t * p.B + b)) continue;
      Edge* const dst = dx_row(t, b);
      for (int64_t i = 0; i < p.I; i += W) V::zero().store(dst + i, lanes_at<V>(i, p.I));
    }
  }

  // Those of a block whose products are computed: what exists, or of a matrix unit all, because it
  // takes rows as they lie in memory.
  struct InputRows {
    static constexpr bool kAll = F::MatrixUnit::kPresent;
    int64_t count = 0;
    const Row* deltas[BlockRows::kMost];
    int64_t times[BlockRows::kMost], sequences[BlockRows::kMost];

    FUSEDRNN_MEMBER InputRows(ParameterGradients& gradients, int64_t block) {
      if constexpr (kAll) {
        const Range rows = gradients.row_block(block);
        const int64_t B = gradients.p.B;
        for (int64_t row = rows.begin; row < rows.end; ++row) {
          const int64_t t = gradients.chunk.begin + row / B, place = row % B;
          add(gradients.context.delta_at_place(t, place), t, gradients.job.order.number(place));
        }
      } else {
        const BlockRows& rows = gradients.rows_of_block(block);
        for (int64_t k = 0; k < rows.count; ++k) {
          if (rows.deltas[k] != nullptr) add(rows.deltas[k], rows.times[k], rows.sequences[k]);
        }
      }
    }
    FUSEDRNN_MEMBER void add(const Row* row, int64_t t, int64_t b) {
      deltas[count] = row;
      times[count] = t;
      sequences[count++] = b;
    }
  };

  struct InputTiles {
    const ParameterGradients& gradients;
    const InputRows& rows;

    FUSEDRNN_MEMBER bool exists(int64_t row) const {
      return gradients.flags.valid(rows.times[row] * gradients.p.B + rows.sequences[row]);
    }

    void run(Tile tile) const {
      if (InputRows::kAll) {
        bool any = false;
        for (int64_t row = tile.row; row < tile.row + tile.rows && !any; ++row) any = exists(row);
        if (!any) return;
      }
      const BackwardJob& job = gradients.job;
      alignas(64) Real sums[kTileSums<F, kWidePanel>];
      Product<F> product;
      product.depth = gradients.context.delta_depth(gradients.context.shape.input);
      product.set_weights(static_cast<const typename F::Panel*>(job.input), 0,
                          product.depth * kWidth, tile);
      product.out = sums;
      product.out_row = kWidth;
      product.out_panel = tile.rows * kWidth;
      if constexpr (InputRows::kAll) {
        product.set_rows(rows.deltas[tile.first_row()], job.ld_delta);
      } else {
        for (int64_t m = 0; m < tile.rows; ++m) product.rows[m] = rows.deltas[tile.row + m];
      }
      run_product(product, kWidePanel, tile);
      const Real* sum = sums + tile.repeated * kWidth;
      for (int64_t panel = tile.panel; panel < tile.panel + tile.panels; ++panel) {
        for (int64_t row = tile.row; row < tile.row + tile.rows; ++row, sum += kWidth) {
          if (!InputRows::kAll || exists(row)) store(sum, panel * kWidth, row);
        }
      }
    }

    FUSEDRNN_MEMBER void store(const Real* sum, int64_t column, int64_t row) const {
      const int64_t columns = gradients.p.I;
      Edge* const dst = gradients.dx_row(rows.times[row], rows.sequences[row]);
      for (int v = 0; v < kWidePanel && column < columns; ++v, column += W) {
        const int n = static_cast<int>(columns - column < W ? columns - column : W);
        V d = V::load(sum + v * W);
        if (gradients.context.call.accumulate_dx) d = d + V::load(dst + column, n);
        d.store(dst + column, n);
      }
    }
  };

  // A block's rows, columns [column, column + width), into panels [panel][k / K][kWidth][K]; rows
  // that do not exist or fill up the last group of k are zero.
  template <class Number>
  void pack_inputs(const Inputs& inputs, const BlockRows& rows, int64_t column, int64_t width,
                   Packed* packed) const {
    const auto* const first = static_cast<const Number*>(inputs.rows.data) + column;
    for (int64_t k = 0; k < round_up(rows.count, kDepthUnit); k += K) {
      const Number* group[K];
      for (int i = 0; i < K; ++i) {
        group[i] = nullptr;
        if (k + i >= rows.count || rows.deltas[k + i] == nullptr) continue;
        const int64_t b = rows.sequences[k + i];
        group[i] = first + (rows.times[k + i] - inputs.first_time) * inputs.rows.t_stride +
                   (inputs.by_place ? job.order.place(b) : b) * inputs.rows.b_stride;
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
  void pack_deltas(const BlockRows& rows, int64_t column, Row* packed) const {
    if constexpr (PairUnit::kPresent) {
      PairUnit::pack_transposed(rows.deltas, column, rows.count, packed);
    } else if constexpr (K == 1) {
      for (int64_t k = 0; k < rows.count; ++k, packed += kRows) {
        const Row* const src = rows.deltas[k] + column;
        FUSEDRNN_UNROLL
        for (int m = 0; m < kRows; ++m) packed[m] = src[m];
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
  ParameterGradients<F> gradients(context, registers);
  const CellShape& shape = context.shape;
  const int64_t ld = context.job.ld_state, slot = context.p.B * ld;
  gradients.template outer<typename F::Edge>({context.call.x, 0, false}, shape.input,
                                             shape.input_delta);
  for (int i = 0; i < shape.stage_count; ++i) {
    const StageShape& stage = shape.stages[i];
    if (stage.operand == cells::Operand::none) continue;
    int blocks[kMaxGates];
    for (int g = 0; g < stage.product.gates; ++g) blocks[g] = stage.first_delta + g;
    // Those of h lie by slot, what a stage passed on by time.
    const bool of_h = stage.operand == cells::Operand::h;
    const int64_t begin = context.chunk.begin;
    const int64_t first = context.kept_slot(of_h ? begin + context.p.reverse : begin);
    Row* const rows = static_cast<Row*>(context.job.kept.operands[i]) + first * slot;
    gradients.template outer<Row>({{rows, slot, ld}, begin, true}, stage.product, blocks);
  }
  gradients.sums();
  if (context.call.dx.data != nullptr) gradients.input();
}

// Of the reset states that are wanted, once all steps have been walked.
template <class F>
FUSEDRNN_ONCE void reset_gradients(const BackwardContext<F>& context,
                                   typename F::MatrixUnit::Registers& registers) {
  const ParameterGradients<F> gradients(context, registers);
  for (int s = 0; s < context.shape.state_count; ++s) gradients.sum_resets(s);
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
