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

// Whether products over rows read the gradients of gates not where they lie but in a copy, because
// an instruction takes those of several rows at once; and of how many tiles, to take whole cache
// lines.
template <class F>
constexpr bool kCopiesDeltas = F::MatrixUnit::kPresent || F::Pair::kDepth > 1;
template <class F>
constexpr int kCopiedTiles = F::MatrixUnit::kPresent ? 1 : 8;
template <class F>
constexpr int kCopiedUnits = kCopiesDeltas<F> ? kCopiedTiles<F> * kGradientRows<F> : 0;

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
  static constexpr int kCopied = kCopiedUnits<F>;

  FUSEDRNN_MEMBER ParameterGradients(const BackwardContext<F>& its_context,
                                     typename F::MatrixUnit::Registers& its_registers)
      : context(its_context), registers(its_registers) {}

  const BackwardContext<F>& context;
  typename F::MatrixUnit::Registers& registers;
  const BackwardJob& job = context.job;
  const Problem& p = context.p;
  // dw[(first + i)*units + u, :] (+)= sum over rows of delta[row][blocks[i]][u] * inputs[row, :],
  // for the gates of a product; of several heads, inputs are those of the head of u. A thread
  // computes its share of every gate's units. `inputs`: of each of the block's rows.
  template <class Number>
  FUSEDRNN_MEMBER void outer(const BlockRows<F>& rows, const Number* const* inputs,
                             const ProductShape& product, const int* blocks) const {
    // Where sums wait elsewhere, the last block rounds them, be it empty.
    if (rows.count == 0 && !rows.begins && !(rows.ends && !kSame<Edge, Real>)) return;
    for_heads(product, [&](const Head& head)
                           FUSEDRNN_LAMBDA { outer_of_head(rows, inputs, product, blocks, head); });
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

  // After the last block: what is the same sum as another.
  FUSEDRNN_ONCE void finish() const {
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

  // The gradients of a tile's units: what rows have from `column` on, or their copy.
  struct DeltaTile {
    const Row* const* rows;
    int64_t column;
    const Row* copy;
  };

  // Where sums of a tile go: those of the last block to `result`.
  struct SumTile {
    Real* sums;
    int64_t stride;
    Edge* result;  // null: there are more blocks
    int64_t result_stride;
    int height;
    bool add;  // to those of the blocks before

    FUSEDRNN_MEMBER SumTile from(int64_t column) const {
      SumTile tile = *this;
      tile.sums += column;
      if (tile.result != nullptr) tile.result += column;
      return tile;
    }
  };

  template <class Number>
  FUSEDRNN_ONCE void outer_of_head(const BlockRows<F>& rows, const Number* const* inputs,
                                   const ProductShape& product, const int* blocks,
                                   const Head& head) const {
    const int64_t all_units = extent(p, product.units), units = all_units / head.count;
    const int64_t columns = extent(p, product.depth) / head.count;
    const int64_t first_unit = head.number * units, first_column = head.number * columns;
    // Sums gather elsewhere where the caller's array is too narrow for them.
    constexpr bool kInPlace = kSame<Edge, Real>;
    const Matrix& dw = context.call.dparameters[product.weights];
    Real* const total = static_cast<Real*>(kInPlace ? dw.data : job.sums[product.weights]);
    const int64_t stride = kInPlace ? dw.stride : columns;
    Packed* packed_inputs = context.template part_of<Packed>(job.scratch);
    Row* const copy = reinterpret_cast<Row*>(packed_inputs + job.block_room * job.block_columns);
    if constexpr (PairUnit::kPresent) registers.configure(kRows);
    for (int64_t column = 0; column < columns; column += job.block_columns) {
      const int64_t left = columns - column;
      const int64_t width = left < job.block_columns ? left : job.block_columns;
      pack_inputs(inputs, rows, first_column + column, width, packed_inputs);
      for (int g = 0; g < product.gates; ++g) {
        const int64_t first_delta = blocks[g] * job.delta_block + first_unit;
        const int64_t first_row = (product.first + g) * all_units + first_unit;
        for (int64_t tile = head.own.begin; tile < head.own.end; ++tile) {
          const int64_t unit = tile * kRows;
          const int height = static_cast<int>(units - unit < kRows ? units - unit : kRows);
          const int64_t copied = (tile - head.own.begin) % kCopiedTiles<F>;
          if constexpr (kCopiesDeltas<F>) {
            const int64_t all = (head.own.end - tile) * kRows;
            const int64_t some = all < units - unit ? all : units - unit;
            if (copied == 0) {
              copy_deltas(rows, first_delta + unit, some < kCopied ? some : kCopied, copy);
            }
          }
          const DeltaTile deltas{rows.deltas, first_delta + unit, copy + copied * kRows * K};
          Real* const first = total + (first_row + unit) * stride + column;
          SumTile out{first, stride, nullptr, dw.stride, height, !rows.begins};
          if (rows.ends) out.result = row_of<Edge>(dw, first_row + unit) + column;
          for (int64_t n = 0; n < width; n += kWidth) {
            add_tile(deltas, packed_inputs + n * job.block_room, rows.count, out.from(n),
                     width - n);
          }
        }
      }
    }
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
  template <class Number>
  void pack_inputs(const Number* const* inputs, const BlockRows<F>& rows, int64_t column,
                   int64_t width, Packed* packed) const {
    for (int64_t k = 0; k < round_up(rows.count, BlockRows<F>::kTogether); k += K) {
      const Number* group[K];
      for (int i = 0; i < K; ++i) {
        const bool read =
            BlockRows<F>::kTogether == 1 || (k + i < rows.count && rows.deltas[k + i] != nullptr);
        group[i] = read ? inputs[k + i] + column : nullptr;
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

  // `columns` of them from one on: [k / K][kCopied][K], or what a matrix unit takes, zeros as
  // above. Up to seven more are read and written: rows have as much padding.
  void copy_deltas(const BlockRows<F>& rows, int64_t column, int64_t columns, Row* packed) const {
    if constexpr (PairUnit::kPresent) {
      PairUnit::pack_transposed(rows.deltas, column, rows.count, packed);
    } else {
      const Row zeros[kCopied] = {};
      for (int64_t k = 0; k < rows.count; k += K, packed += kCopied * K) {
        const Row* group[K];
        FUSEDRNN_UNROLL
        for (int i = 0; i < K; ++i) {
          const bool read = k + i < rows.count && rows.deltas[k + i] != nullptr;
          group[i] = read ? rows.deltas[k + i] + column : zeros;
        }
        Pair::interleave(group, columns, packed);
      }
    }
  }

  FUSEDRNN_MEMBER void add_tile(const DeltaTile& a, const Packed* b, int64_t depth,
                                const SumTile& out, int64_t columns) const {
    if constexpr (PairUnit::kPresent) {
      PairUnit::add_block(a.copy, b, depth, out.sums, out.stride, out.height, columns, out.add);
      if (!kSame<Edge, Real> && out.result != nullptr) round_sums(out, columns);
    } else if (columns > 3 * W) {
      add_tile_of<4>(a, b, depth, out, columns);
    } else if (columns > 2 * W) {
      add_tile_of<3>(a, b, depth, out, columns);
    } else if (columns > W) {
      add_tile_of<2>(a, b, depth, out, columns);
    } else {
      add_tile_of<1>(a, b, depth, out, columns);
    }
  }

  static FUSEDRNN_MEMBER void round_sums(const SumTile& out, int64_t columns) {
    for (int m = 0; m < out.height; ++m) {
      for (int64_t i = 0; i < kWidth && i < columns; i += W) {
        const int count = lanes_at<V>(i, columns);
        V::load(out.sums + m * out.stride + i, count)
            .store(out.result + m * out.result_stride + i, count);
      }
    }
  }

  // out[m][n] (+)= sum over k of a[k][m] * b[k][n]. Rows of a are read even where they are not
  // wanted: the caller's have as much padding.
  template <int N>
  FUSEDRNN_ONCE static void add_tile_of(const DeltaTile& deltas, const Packed* b, int64_t depth,
                                        const SumTile& out, int64_t columns) {
    V acc[kRows][N];
    FUSEDRNN_UNROLL
    for (int m = 0; m < kRows; ++m) {
      FUSEDRNN_UNROLL
      for (int n = 0; n < N; ++n) {
        acc[m][n] = V::zero();
        // The sums so far come from memory, while the products run.
        if (out.add) prefetch_far(out.sums + m * out.stride + n * W);
      }
    }
    for (int64_t k = 0; k < depth; k += K, b += kWidth * K) {
      typename Pair::Weights x[N];
      FUSEDRNN_UNROLL
      for (int n = 0; n < N; ++n) x[n] = Pair::load(b + n * W * K);
      const Row* a;
      if constexpr (kCopiesDeltas<F>) {
        a = deltas.copy + k * kCopied;
      } else {
        a = deltas.rows[k] + deltas.column;
        prefetch_far(a + 2 * kRows - 1);  // of the next tile: a block fills the cache
      }
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
      if (m >= out.height) break;
      FUSEDRNN_UNROLL
      for (int n = 0; n < N; ++n) {
        Real* const sum = out.sums + m * out.stride + n * W;
        const int count = n + 1 < N ? W : last;
        if (out.add) acc[m][n] = acc[m][n] + V::load(sum, count);
        if (!kSame<Edge, Real> && out.result != nullptr) {
          acc[m][n].store(out.result + m * out.result_stride + n * W, count);
        } else {
          acc[m][n].store(sum, count);
        }
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
  const bool with_blocks =
      context.call.dx.data != nullptr && links.steps == 0 && links.dx_before == nullptr;
  const int64_t ld = context.job.ld_state, slot = context.p.B * ld, begin = context.chunk.begin;
  for (int64_t i = 0; i < row_blocks(context); ++i) {
    const BlockRows<F> rows(context, i);
    if (with_blocks) {  // first, since others may wait for it
      input_gradient(context, registers, rows);
      context.report_done(i + 1);
    }
    gradients.outer(rows, rows.x, shape.input, shape.input_delta);
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
      const Row* inputs[kBlockRows];
      for (int64_t k = 0; k < rows.count; ++k) inputs[k] = operands + rows.places[k] * ld;
      gradients.outer(rows, inputs, product, blocks);
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
