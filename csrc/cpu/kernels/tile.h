// The register tile: M rows times N vectors of a product, accumulated over k in one order whatever
// M and N are. That order is what makes a sequence's result independent of its batch.
//
// A row m is found through rows[m], so rows may lie anywhere; b is packed: one panel of width
// N/Panels vectors after the other, each [k / D][N/Panels * W][D] with D = Dot::kDepth.
#pragma once

#include "cpu/kernels/format.h"
#include "cpu/kernels/map.h"
#include "cpu/kernels/meanwhile.h"
#include "cpu/kernels/walk.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Accumulators that leave room for the operands.
constexpr int kAccumulators = kRegisters == 32 ? 24 : 12;

// A dual number's accumulator takes two registers.
template <class F>
constexpr bool kIsDual = !kSame<typename F::Real, typename PlainOf<typename F::Real>::type>;

constexpr int kMaxTileRows = 8;
// The most vectors in a panel.
constexpr int kMostVectors = 6;

template <class F>
constexpr int tile_rows(int vectors) {
  // Two that spill cost less than weights that serve a single row.
  const int rows =
      kIsDual<F> ? (kAccumulators / 2 + vectors - 1) / vectors : kAccumulators / vectors;
  // Of more a matrix unit takes care.
  const int most = F::MatrixUnit::kPresent ? F::MatrixUnit::kFewestRows - 1 : kMaxTileRows;
  return rows < 1 ? 1 : rows > most ? most : rows;
}

// The same for every number of vectors that products have.
template <class F>
struct TileRows {
  int of[kMostVectors + 1] = {};

  constexpr TileRows() {
    for (int vectors = 1; vectors <= kMostVectors; ++vectors) of[vectors] = tile_rows<F>(vectors);
  }
};

// How many panels a tile of few rows takes side by side, to have enough independent chains for the
// latency of a fused multiply-add (4 cycles, of bfloat16 pairs 6; 2 a cycle). A single row waits
// for its weights, not for sums. A dual number's sum is two chains.
template <class F>
constexpr int tile_panels(int rows, int vectors) {
  constexpr int kOfSum = kIsDual<F> ? 2 : 1;
  const int chains = rows * vectors * kOfSum, enough = rows == 1 ? 6 : 12;
  if (chains >= enough || chains * 2 > kAccumulators) return 1;
  return chains * 2 >= enough || chains * 4 > kAccumulators ? 2 : 4;
}

// High tiles take long enough over a line of weights to fetch a line of later ones beside it.
constexpr int kFetchingRows = 4;
constexpr int64_t kFetchBytes = 64;

// Calls add(sums, begin, end) for all k: the sums themselves at once, or what takes their place in
// groups of k whose products a Dot sums apart.
template <class Dot, int M, int N, class Add>
FUSEDRNN_INLINE void for_groups(typename Dot::Sum (&acc)[M][N], int64_t depth, const Add& add) {
  if constexpr (requires { Dot::kGroup; }) {
    for (int64_t k = 0; k < depth; k += Dot::kGroup) {
      typename Dot::Part parts[M][N];
      add(parts, k, k + Dot::kGroup);
      FUSEDRNN_UNROLL
      for (int m = 0; m < M; ++m) {
        FUSEDRNN_UNROLL
        for (int n = 0; n < N; ++n) acc[m][n] = parts[m][n].added_to(acc[m][n]);
      }
    }
  } else {
    add(acc, 0, depth);
  }
}

// acc[m][n] += sum over k of rows[m][k] * b[k][n], for k < depth, a multiple of Dot::kDepth; b's
// steps over k are `step` numbers apart. What lies from `ahead` on, a line for each of them, is
// brought into the second-level cache.
template <class Dot, int Panels, int M, int N, class Row, class Panel>
FUSEDRNN_INLINE void multiply(typename Dot::Sum (&acc)[M][N], const Row* const* rows,
                              const Panel* b, int64_t panel_stride, int64_t step, int64_t depth,
                              const char* ahead) {
  constexpr int kVectors = N / Panels;
  constexpr int kWeights = Dot::V::width * Dot::kDepth;  // numbers that one vector of units takes
  const Row* a[M];
  FUSEDRNN_UNROLL
  for (int m = 0; m < M; ++m) a[m] = rows[m];
  for_groups<Dot>(acc, depth, [&](auto& sums, int64_t begin, int64_t end) FUSEDRNN_LAMBDA {
    for (int64_t k = begin; k < end; k += Dot::kDepth) {
      typename Dot::Weights weights[N];
      FUSEDRNN_UNROLL
      for (int p = 0; p < Panels; ++p) {
        FUSEDRNN_UNROLL
        for (int n = 0; n < kVectors; ++n) {
          weights[p * kVectors + n] = Dot::load(b + p * panel_stride + n * kWeights);
        }
      }
      FUSEDRNN_UNROLL
      for (int m = 0; m < M; ++m) {
        const typename Dot::Operand x = Dot::broadcast(a[m] + k);
        FUSEDRNN_UNROLL
        for (int n = 0; n < N; ++n) sums[m][n] = Dot::add(sums[m][n], x, weights[n]);
      }
      b += step;
      if constexpr (M >= kFetchingRows) {
        prefetch_far(ahead);
        ahead += kFetchBytes;
      }
    }
  });
}

// A product of a tile's rows with one or a few panels.
template <class F>
struct Product {
  const typename F::Row* rows[kMaxTileRows];
  int64_t rows_stride;  // between rows that lie evenly; a matrix unit takes no others
  const typename F::Panel* weights;
  int64_t weights_stride;  // from panel to panel
  int64_t step;            // of a panel, from one k or group of them to the next
  const char* ahead;       // weights that later tiles will read
  int64_t depth;
  // [panel][Vectors*W], what the sums begin with; null: zeros.
  const typename F::Real* bias = nullptr;
  int64_t bias_stride = 0;
  typename F::Real* out;  // [row][Vectors*W] of the first panel
  int64_t out_row, out_panel;
  // Of a quantised product alone; `scale` and `start` lie as `bias` does.
  const float* scale;  // of the weights of a unit
  const int32_t* start;
  const float* row_scale;  // [row]
  const Meanwhile* meanwhile = nullptr;

  // Panels from number `first` on, `stride` apart. Needs the depth.
  FUSEDRNN_MEMBER void set_weights(const typename F::Panel* panels, int64_t first, int64_t stride,
                                   const Tile& tile) {
    weights = panels + (tile.panel - first) * stride;
    weights_stride = stride;
    // The tiles of a panel share the next one out; those that are left over fetch what is there.
    const int64_t begin = tile.index * (depth / F::Dot::kDepth) * kFetchBytes;
    const bool left_over = begin >= stride * static_cast<int64_t>(sizeof *weights);
    const typename F::Panel* next = panels + (tile.ahead - first) * stride;
    ahead = left_over ? reinterpret_cast<const char*>(weights)
                      : reinterpret_cast<const char*>(next) + begin;
  }

  // What stands beside the weights of panel number `panel`, which has `numbers` columns.
  FUSEDRNN_MEMBER void set_columns(const PackedProduct& packed, int64_t panel, int64_t numbers) {
    bias_stride = numbers;
    bias = static_cast<const typename F::Real*>(packed.bias) + panel * numbers;
    if constexpr (F::kQuantised) {
      scale = packed.scale + panel * numbers;
      start = packed.start + panel * numbers;
    }
  }

  // Rows that lie `stride` apart. All of them: a loop to a number known at run time costs more.
  FUSEDRNN_MEMBER void set_rows(const typename F::Row* first, int64_t stride) {
    FUSEDRNN_UNROLL
    for (int m = 0; m < kMaxTileRows; ++m, first += stride) rows[m] = first;
    rows_stride = stride;
  }
};

// Which columns of its operand a product with w_hh reads: those of the head that a panel is of. A
// head has whole panels.
struct HeadPanels {
  int64_t depth = 0;   // of a head
  int64_t panels = 0;  // of a head; 0: all are of one

  HeadPanels() = default;
  FUSEDRNN_MEMBER HeadPanels(const Problem& p, const ProductShape& product, int64_t panel_units)
      : depth(depth_of(p, product)), panels(heads_of(p, product) > 1 ? depth / panel_units : 0) {}

  FUSEDRNN_MEMBER int64_t first_column(int64_t panel) const { return panel / panels * depth; }
  // What of a tile, from a panel on, is multiplied at once.
  FUSEDRNN_MEMBER Tile part(const Tile& tile, int64_t panel) const {
    Tile part = tile;
    part.panel = panel;
    if (tile.panel / panels != (tile.panel + tile.panels - 1) / panels) part.panels = 1;
    return part;
  }
};

// Compiled once for a shape of tile, whatever cell it serves; hence the results go to memory, and
// the cell's maths reads them from the first-level cache.
template <class F, int Vectors, int M, int Panels>
FUSEDRNN_ONCE void run_tile(const Product<F>& product) {
  using V = typename F::V;
  constexpr int N = Panels * Vectors;
  typename F::Dot::Sum acc[M][N];
  FUSEDRNN_UNROLL
  for (int p = 0; p < Panels; ++p) {
    FUSEDRNN_UNROLL
    for (int n = 0; n < Vectors; ++n) {
      const int64_t at = p * product.bias_stride + n * V::width;
      typename F::Dot::Sum first;
      if constexpr (F::kQuantised) {
        first = F::Dot::begin(product.start + at);
      } else {
        first = product.bias == nullptr ? V::zero() : V::load(product.bias + at);
      }
      FUSEDRNN_UNROLL
      for (int m = 0; m < M; ++m) acc[m][p * Vectors + n] = first;
    }
  }
  multiply<typename F::Dot, Panels>(acc, product.rows, product.weights, product.weights_stride,
                                    product.step, product.depth, product.ahead);
  FUSEDRNN_UNROLL
  for (int p = 0; p < Panels; ++p) {
    FUSEDRNN_UNROLL
    for (int m = 0; m < M; ++m) {
      typename F::Real* out = product.out + p * product.out_panel + m * product.out_row;
      FUSEDRNN_UNROLL
      for (int n = 0; n < Vectors; ++n) {
        if constexpr (F::kQuantised) {
          const int64_t at = p * product.bias_stride + n * V::width;
          const V scale = V::load(product.scale + at) * V::set(product.row_scale[m]);
          fma(F::Dot::value(acc[m][p * Vectors + n]), scale, V::load(product.bias + at))
              .store(out + n * V::width);
        } else {
          acc[m][p * Vectors + n].store(out + n * V::width);
        }
      }
    }
  }
}

// Finds the tile compiled for `rows` and `panels`.
template <int Vectors, class F, int M = 1>
FUSEDRNN_INLINE void find_tile(const Product<F>& product, int64_t rows, int64_t panels) {
  if (rows == M) {
    constexpr int kPanels = tile_panels<F>(M, Vectors);
    if constexpr (kPanels > 1) {
      if (panels == kPanels) return run_tile<F, Vectors, M, kPanels>(product);
      if (kPanels > 2 && panels == 2) return run_tile<F, Vectors, M, 2>(product);
    }
    run_tile<F, Vectors, M, 1>(product);
  } else if constexpr (M < tile_rows<F>(Vectors)) {
    find_tile<Vectors, F, M + 1>(product, rows, panels);
  }
}

// The sums of a tile of panels of at most so many vectors.
template <class F, int Vectors>
constexpr int kTileSums =
    (kAccumulators > F::MatrixUnit::kRows * Vectors ? kAccumulators
                                                    : F::MatrixUnit::kRows * Vectors) *
    F::V::width;

template <int Vectors, class F>
FUSEDRNN_INLINE void run_product_of(const Product<F>& product, const Tile& tile) {
  if constexpr (F::MatrixUnit::kPresent) {
    if (tile.by_matrix_unit()) {
      F::MatrixUnit::template run<Vectors>(product, tile);
      return;
    }
  }
  find_tile<Vectors>(product, tile.rows, tile.panels);
}

// Products are compiled once a format, for panels of so many vectors, whatever the cell.
constexpr bool has_product(int vectors) {
  return vectors >= 1 && vectors <= kMostVectors && vectors != 5;
}

// `held`: of a panel's vectors those that are multiplied, the first ones.
template <class F>
FUSEDRNN_ONCE void run_product(Product<F>& product, int vectors, int held, const Tile& tile) {
  product.step = vectors * int64_t{F::V::width * F::Dot::kDepth};
  switch (held) {
    case 1:
      return run_product_of<1>(product, tile);
    case 2:
      return run_product_of<2>(product, tile);
    case 3:
      return run_product_of<3>(product, tile);
    case 4:
      return run_product_of<4>(product, tile);
    default:
      return run_product_of<6>(product, tile);
  }
}

// The same of panels of the columns of a matrix, of which the last one may have vectors beyond the
// last column: a tile of that panel alone leaves them out, and what they would have in `out`.
template <class F>
FUSEDRNN_INLINE void run_product_of_columns(Product<F>& product, int vectors, int64_t columns,
                                            const Tile& tile) {
  const int64_t held = blocks_of(columns, F::V::width) - tile.panel * vectors;
  const bool narrow = tile.panels == 1 && held < vectors && !tile.by_matrix_unit();
  run_product(product, vectors, narrow ? static_cast<int>(held) : vectors, tile);
}

// The same of panels of the gates of units: of several gates those of the last panel lie between
// vectors that are wanted.
template <class F>
FUSEDRNN_INLINE void run_product_of_units(Product<F>& product, int gates, int vectors,
                                          int64_t units, const Tile& tile) {
  if (gates == 1) {
    run_product_of_columns(product, vectors, units, tile);
  } else {
    run_product(product, vectors, vectors, tile);
  }
}

// Covers panels x rows with tiles of nearly equal height, calling work.run(tile); a panel's weights
// stay in the near cache while the rows pass over them. `turned`: the panels from the last to the
// first.
template <class F, class Work>
FUSEDRNN_INLINE void for_tiles(int vectors, const Work& work, Range all_panels, Range all_rows,
                               bool turned = false) {
  const int64_t rows = all_rows.size();
  if (rows <= 0) return;
  // Small steps notice a division.
  static constexpr TileRows<F> kHighest;
  const int64_t highest = kHighest.of[vectors];
  const int64_t tiles = rows <= highest ? 1 : blocks_of(rows, highest);
  // Only a single tile can be so low that it needs several panels (see tile_panels).
  const int64_t wide = tiles == 1 ? tile_panels<F>(static_cast<int>(rows), vectors) : 1;
  const int64_t groups = wide == 1 ? all_panels.size() : all_panels.size() >> (wide / 2);
  const int64_t rest = all_panels.size() - groups * wide;
  const int64_t visits = groups + (rest + 1) / 2;  // of what is left over two together
  const auto first_panel = [&](int64_t visit) FUSEDRNN_LAMBDA {
    const int64_t at = turned ? visits - 1 - visit : visit;
    return all_panels.begin + (at < groups ? at * wide : groups * wide + (at - groups) * 2);
  };
  for (int64_t visit = 0; visit < visits; ++visit) {
    const int64_t panel = first_panel(visit), left = all_panels.end - panel;
    const int64_t panels = left >= wide ? wide : left >= 2 ? 2 : 1;
    const int64_t ahead = first_panel(visit + 1 < visits ? visit + 1 : visit);
    for (int64_t i = 0; i < tiles; ++i) {
      const Range some = tiles == 1 ? Range{0, rows} : share(rows, tiles, i);
      work.run(Tile{panel, panels, all_rows.begin + some.begin, some.size(), i, ahead});
    }
  }
}

// The same with a matrix unit. Its registers are configured for one height of blocks, so the last
// block begins where it covers the last row, among rows that are done.
template <class F, class Work>
FUSEDRNN_INLINE void for_blocks(typename F::MatrixUnit::Registers& registers, const Work& work,
                                Range panels, Range rows, bool turned) {
  if (rows.size() <= 0) return;
  const int64_t blocks = blocks_of(rows.size(), F::MatrixUnit::kRows);
  const int64_t height = blocks_of(rows.size(), blocks);
  registers.configure(height);
  for (int64_t visit = panels.begin; visit < panels.end; ++visit) {
    const int64_t panel = turned ? panels.begin + panels.end - 1 - visit : visit;
    const bool last = visit + 1 == panels.end;
    const int64_t ahead = last ? panel : turned ? panel - 1 : panel + 1;
    int64_t index = 0;
    for (int64_t row = rows.begin; row < rows.end; row += height, ++index) {
      const int64_t left = rows.end - row < height ? rows.end - row : height;
      work.run(Tile{panel, 1, row, left, index, ahead, height - left, panels.size(),
                    registers.far_weights()});
    }
  }
}

// By the matrix unit where a call is large enough for it, else by tiles, with the same bits.
template <class F, class Work>
FUSEDRNN_INLINE void for_products([[maybe_unused]] typename F::MatrixUnit::Registers& registers,
                                  int vectors, const Work& work, Range panels, Range rows,
                                  bool turned = false) {
  if constexpr (F::MatrixUnit::kPresent) {
    if (registers.multiplies()) {
      for_blocks<F>(registers, work, panels, rows, turned);
      return;
    }
  }
  for_tiles<F>(vectors, work, panels, rows, turned);
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
