// What follows the walk through time, from the deltas of all steps:
//   dw  = delta^T inputs     (outer)    db = sum of delta (bias)    dx = delta W_ih (input)
// Rows (t,b) of the deltas are summed in blocks of block_rows, in order, whatever the threads. Rows
// of steps that do not exist (t >= lengths[b]) have zero deltas; what x holds there may be NaN and
// is not read.
#pragma once

#include "cpu/kernels/pack.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Vectors in a panel of W_hh for the recurrent product of backward, where the tile is followed by
// the cell's maths, and of the plain products.
constexpr int kRecurrentPanel = 2;
constexpr int kWidePanel = 4;

// delta [T,B,ld]; block d of unit u at column d*block + u.
struct DeltaRows {
  const void* data;
  int64_t ld, block;
  int64_t T, B;
  const uint8_t* flags;  // null: every row exists
};

// Units whose rows of dw a tile computes.
template <class F>
constexpr int kGradientRows =
    F::MatrixUnit::kPresent ? F::MatrixUnit::kRows : tile_rows(kWidePanel);

template <class F>
struct WeightGradients {
  using Edge = typename F::Edge;
  using Real = typename F::Real;
  using Row = typename F::Row;
  using Panel = typename F::Panel;
  using V = typename F::V;
  using Dot = typename F::Dot;
  // Both operands of the products with x and h are rows, converted as they are packed.
  using Pair = typename F::Pair;
  using Packed = typename Pair::Panel;
  static constexpr int W = V::width;
  using PairUnit = MatrixUnit<Row, Row>;
  static constexpr int K = Pair::kDepth;
  static constexpr int kDepthUnit = K > PairUnit::kDepth ? K : PairUnit::kDepth;
  static constexpr int kWidth = kWidePanel * W;
  static constexpr int kRows = kGradientRows<F>;

  DeltaRows deltas;
  int64_t H;
  int64_t thread, threads;
  int64_t block_rows, block_columns;
  void* scratch;  // block_rows * (block_columns + kRows) numbers
  typename F::MatrixUnit::Registers& registers;

  FUSEDRNN_MEMBER const Row* delta(int64_t row) const {
    return static_cast<const Row*>(deltas.data) + row * deltas.ld;
  }
  FUSEDRNN_MEMBER bool exists(int64_t row) const {
    return deltas.flags == nullptr || (deltas.flags[row] & kValid) != 0;
  }
  FUSEDRNN_MEMBER int64_t total_rows() const { return deltas.T * deltas.B; }

  // dw[(first_gate + i)*H + u, :] = sum over rows of delta[row][blocks[i]][u] * inputs[row, :].
  // A thread computes its share of every gate's units. `sums`: where the sums gather if the
  // caller's array is too narrow for them.
  template <class Number>
  void outer(const Sequence& inputs, int64_t columns, const int* blocks, int first_gate, int gates,
             const Matrix& dw, void* sums) const {
    const int64_t tiles = (H + kRows - 1) / kRows;
    const Range own = share(tiles, threads, thread);
    if (own.begin == own.end) return;
    Real* total = static_cast<Real*>(kSame<Edge, Real> ? dw.data : sums);
    const int64_t stride = kSame<Edge, Real> ? dw.stride : columns;
    Packed* packed_inputs = static_cast<Packed*>(scratch);
    Row* packed_deltas = reinterpret_cast<Row*>(packed_inputs + block_rows * block_columns);
    if constexpr (PairUnit::kPresent) registers.configure(kRows);
    for (int64_t column = 0; column < columns; column += block_columns) {
      const int64_t width = columns - column < block_columns ? columns - column : block_columns;
      for (int64_t row = 0; row < total_rows(); row += block_rows) {
        const int64_t depth = total_rows() - row < block_rows ? total_rows() - row : block_rows;
        pack_inputs<Number>(inputs, row, depth, column, width, packed_inputs);
        for (int g = 0; g < gates; ++g) {
          for (int64_t tile = own.begin; tile < own.end; ++tile) {
            const int64_t unit = tile * kRows;
            const int height = static_cast<int>(H - unit < kRows ? H - unit : kRows);
            const Row* operand = delta(row) + blocks[g] * deltas.block + unit;
            if constexpr (PairUnit::kPresent) {
              PairUnit::pack_transposed(operand, deltas.ld, depth, packed_deltas);
              operand = packed_deltas;
            } else {
              pack_deltas(operand, depth, packed_deltas);
              operand = packed_deltas;
            }
            Real* out = total + ((first_gate + g) * H + unit) * stride + column;
            for (int64_t n = 0; n < width; n += kWidth) {
              add_tile(operand, packed_inputs + n * block_rows, depth, out + n, stride, height,
                       width - n, row > 0);
            }
          }
        }
      }
    }
    if constexpr (!kSame<Edge, Real>) {
      const int64_t end = own.end * kRows < H ? own.end * kRows : H;
      for (int g = first_gate; g < first_gate + gates; ++g) {
        for (int64_t u = own.begin * kRows; u < end; ++u) {
          convert_row(total + (g * H + u) * stride, columns,
                      static_cast<Edge*>(dw.data) + (g * H + u) * dw.stride);
        }
      }
    }
  }

  // db[gate*H + u] = sum over rows of delta[row][block*H + u]
  void bias(int block, int gate, void* db) const {
    if (db == nullptr) return;
    const Range own = share((H + W - 1) / W, threads, thread);
    for (int64_t v = own.begin; v < own.end; ++v) {
      const int n = static_cast<int>(H - v * W < W ? H - v * W : W);
      V total = V::zero();
      for (int64_t row = 0; row < total_rows(); row += block_rows) {
        const int64_t depth = total_rows() - row < block_rows ? total_rows() - row : block_rows;
        V sum = V::zero();
        const Row* src = delta(row) + block * deltas.block + v * W;
        for (int64_t k = 0; k < depth; ++k, src += deltas.ld) sum = sum + V::load(src, n);
        total = total + sum;
      }
      total.store(static_cast<Edge*>(db) + gate * H + v * W, n);
    }
  }

  // dx[row, :] (+)= delta[row, the first `blocks`] packed, panels of inputs.
  void input(const Panel* packed, int blocks, int64_t columns, const Sequence& dx,
             bool accumulate) const {
    const int64_t depth = blocks * deltas.block;
    const int64_t panels = (columns + kWidth - 1) / kWidth;
    const bool by_panel = panels >= threads;
    const Range own_panels = by_panel ? share(panels, threads, thread) : Range{0, panels};
    const Range own_rows = by_panel ? Range{0, total_rows()} : share(total_rows(), threads, thread);
    for_products<F, kWidePanel>(registers, total_rows(),
                                Inputs{*this, packed, depth, columns, dx, accumulate},
                                own_panels.begin, own_panels.end, own_rows.begin, own_rows.end);
  }

 private:
  struct Inputs {
    const WeightGradients& f;
    const Panel* packed;
    int64_t depth, columns;
    const Sequence& dx;
    bool accumulate;

    void run(Tile tile) const {
      alignas(64) Real sums[kTileSums<F, kWidePanel>];
      Product<F> product;
      product.depth = depth;
      product.set_weights(packed, 0, depth * kWidth, tile);
      product.out = sums;
      product.out_row = kWidth;
      product.out_panel = tile.rows * kWidth;
      product.set_rows(f.delta(tile.first_row()), f.deltas.ld);
      run_product<kWidePanel>(product, tile);
      const Real* sum = sums + tile.repeated * kWidth;
      for (int64_t panel = tile.panel; panel < tile.panel + tile.panels; ++panel) {
        for (int64_t row = tile.row; row < tile.row + tile.rows; ++row, sum += kWidth) {
          store(sum, panel * kWidth, row);
        }
      }
    }

    FUSEDRNN_MEMBER void store(const Real* sum, int64_t column, int64_t row) const {
      Edge* dst = static_cast<Edge*>(dx.data) + row / f.deltas.B * dx.t_stride +
                  row % f.deltas.B * dx.b_stride;
      const bool exists = f.exists(row);
      if (!exists && accumulate) return;
      for (int v = 0; v < kWidePanel && column < columns; ++v, column += W) {
        const int n = static_cast<int>(columns - column < W ? columns - column : W);
        V d = exists ? V::load(sum + v * W) : V::zero();
        if (accumulate) d = d + V::load(dst + column, n);
        d.store(dst + column, n);
      }
    }
  };

  // Rows [row, row + depth), columns [column, column + width) into panels
  // [panel][k / K][kWidth][K]; rows that fill up the last group of k are zero.
  template <class Number>
  void pack_inputs(const Sequence& inputs, int64_t row, int64_t depth, int64_t column,
                   int64_t width, Packed* packed) const {
    int64_t t = row / deltas.B, b = row % deltas.B;
    for (int64_t k = 0; k < round_up(depth, kDepthUnit); k += K) {
      const Number* group[K];
      for (int i = 0; i < K; ++i) {
        const bool read = k + i < depth && exists(row + k + i);
        group[i] = !read ? nullptr
                         : static_cast<const Number*>(inputs.data) + t * inputs.t_stride +
                               b * inputs.b_stride + column;
        if (++b == deltas.B) {
          b = 0;
          ++t;
        }
      }
      for (int64_t n = 0; n < width; n += kWidth) {
        pack_input_group(group, n, width, packed + n * block_rows + k * kWidth);
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

  // [k / K][kRows][K]; rows beyond `depth` are zero. It takes kRows columns even where
  // fewer are wanted: rows have as much padding.
  void pack_deltas(const Row* src, int64_t depth, Row* packed) const {
    if constexpr (K == 1) {
      for (int64_t k = 0; k < depth; ++k, src += deltas.ld, packed += kRows) {
        FUSEDRNN_UNROLL
        for (int m = 0; m < kRows; ++m) packed[m] = src[m];
      }
    } else {
      const Row zeros[kMaxTileRows] = {};
      for (int64_t k = 0; k < depth; k += K, packed += kRows * K) {
        const Row* group[K];
        FUSEDRNN_UNROLL
        for (int i = 0; i < K; ++i, src += deltas.ld) group[i] = k + i < depth ? src : zeros;
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
    } else {
      const int64_t a_stride = kRows * K;
      if (columns > 3 * W) {
        add_tile_of<4>(a, a_stride, b, depth, out, stride, height, columns, add);
      } else if (columns > 2 * W) {
        add_tile_of<3>(a, a_stride, b, depth, out, stride, height, columns, add);
      } else if (columns > W) {
        add_tile_of<2>(a, a_stride, b, depth, out, stride, height, columns, add);
      } else {
        add_tile_of<1>(a, a_stride, b, depth, out, stride, height, columns, add);
      }
    }
  }

  // out[m][n] (+)= sum over k of a[k][m] * b[k][n]
  template <int N>
  __attribute__((noinline)) static void add_tile_of(const Row* a, int64_t a_stride, const Packed* b,
                                                    int64_t depth, Real* out, int64_t stride,
                                                    int height, int64_t columns, bool add) {
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
    for (int64_t k = 0; k < depth; k += K, a += a_stride, b += kWidth * K) {
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

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
