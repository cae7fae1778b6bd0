// Products by AMX. A block is up to 32 rows times one panel, in tiles of 16 x 16
// sums: 2 x 2 of them at a time where there are more than 16 rows, so that every tile of weights
// and of rows that is loaded serves twice, else 1 x 4. Packed panels are what the instruction takes
// for its second operand as they are: 16 groups of k, each with 16 units, K numbers of each.
#pragma once

#include "cpu/isa/amx_bf16/dot.h"
#include "cpu/isa/amx_bf16/tile_instructions.h"
#include "cpu/kernels/map.h"
#include "cpu/kernels/meanwhile.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// The registers: four tiles of sums, those of the upper rows first where there are lower ones, two
// of rows and two of weights.
constexpr int kSumTiles = 0, kRowTiles = 4, kWeightTiles = 6;

// The sums of 16 rows and 16 columns of a block that has RowTiles times 16 rows.
template <int RowTiles>
constexpr int sum_tile(int row_tile, int column_tile) {
  return kSumTiles + row_tile * (4 / RowTiles) + column_tile;
}

// A thread's configuration of its tile registers, from its first block to its end.
class TileRegisters {
 public:
  explicit FUSEDRNN_MEMBER TileRegisters(const MatrixUse& use) : use_(use) {}
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;
  FUSEDRNN_MEMBER ~TileRegisters() {
    if (height_ != 0) release_tiles();
  }

  FUSEDRNN_MEMBER bool multiplies() const { return use_.multiplies; }
  FUSEDRNN_MEMBER bool far_weights() const { return use_.far_weights; }

  // For blocks of `height` rows.
  FUSEDRNN_MEMBER void configure(int64_t height) {
    if (height != height_) reconfigure(height);
  }

 private:
  __attribute__((noinline)) void reconfigure(int64_t height) {
    height_ = height;
    const bool split = height > kTileRows;
    const auto upper = static_cast<uint8_t>(split ? kTileRows : height);
    const auto lower = static_cast<uint8_t>(split ? height - kTileRows : height);
    TileConfiguration configuration;
    for (uint16_t& bytes : configuration.row_bytes) bytes = kTileRowBytes;
    for (int i = 0; i < 2; ++i) {
      configuration.rows[kSumTiles + i] = upper;
      configuration.rows[kSumTiles + 2 + i] = lower;
      configuration.rows[kWeightTiles + i] = kTileRows;
    }
    configuration.rows[kRowTiles] = upper;
    configuration.rows[kRowTiles + 1] = lower;
    configure_tiles(configuration);
  }

  const MatrixUse use_;
  int64_t height_ = 0;
};

// Operands of a block, in bytes.
struct BlockOperands {
  const char* rows;
  int64_t row_stride, lower_rows, row_step;  // to the next row, to the 17th, to the next tile of k
  const char* weights;
  int64_t weight_stride, weight_step;  // to the next group of k, to the next tile of k
  const char* ahead = nullptr;         // what is asked for meanwhile
};

// How blocks read weights: from the first-level cache, where they stay; past it, which leaves it to
// the rows; and the same while others are on their way to the second-level cache.
enum class Weights { staying, passing, far };

// So many high blocks ask for all that a panel has, a single one for its part. Low ones would only
// wait for what they ask for.
constexpr int kAskingBlocks = 2;

// The two kinds of operands.
struct Bf16Operands {
  static constexpr int kBytes = 2;  // of a number
  template <int Sum, int A, int B>
  static FUSEDRNN_MEMBER void multiply() {
    multiply_bf16_tiles<Sum, A, B>();
  }
};
struct Int8Operands {
  static constexpr int kBytes = 1;
  template <int Sum, int A, int B>
  static FUSEDRNN_MEMBER void multiply() {
    multiply_int8_tiles<Sum, A, B>();
  }
};

template <class Operands, int RowTiles, int ColumnTiles, Weights Where, int Column = 0>
FUSEDRNN_INLINE void multiply_column(const char* weights, int64_t stride) {
  constexpr int kWeights = kWeightTiles + Column % 2;
  if constexpr (Where != Weights::staying) {
    load_passing_tile<kWeights>(weights + Column * kTileRowBytes, stride);
  } else {
    load_tile<kWeights>(weights + Column * kTileRowBytes, stride);
  }
  Operands::template multiply<sum_tile<RowTiles>(0, Column), kRowTiles, kWeights>();
  if constexpr (RowTiles == 2) {
    Operands::template multiply<sum_tile<2>(1, Column), kRowTiles + 1, kWeights>();
  }
  if constexpr (Column + 1 < ColumnTiles) {
    multiply_column<Operands, RowTiles, ColumnTiles, Where, Column + 1>(weights, stride);
  }
}

// Tiles of k that are multiplied before there is time for something else.
constexpr int64_t kStepsAtATime = 8;

// Adds the product of `steps` tiles of k to the tiles of sums.
template <class Operands, int RowTiles, int ColumnTiles, Weights Where>
FUSEDRNN_INLINE void multiply_some(BlockOperands& block, int64_t steps) {
  for (; steps > 0; --steps) {
    load_tile<kRowTiles>(block.rows, block.row_stride);
    if constexpr (RowTiles == 2) {
      load_tile<kRowTiles + 1>(block.rows + block.lower_rows, block.row_stride);
    }
    multiply_column<Operands, RowTiles, ColumnTiles, Where>(block.weights, block.weight_stride);
    block.rows += block.row_step;
    block.weights += block.weight_step;
    if constexpr (Where == Weights::far) {
      constexpr int kLines = kTileRows * ColumnTiles / kAskingBlocks;
      FUSEDRNN_UNROLL
      for (int i = 0; i < kLines; ++i) prefetch_far(block.ahead + i * kTileRowBytes);
      block.ahead += kLines * kTileRowBytes;
    }
  }
}

template <class Operands, int RowTiles, int ColumnTiles, Weights Where>
FUSEDRNN_INLINE void multiply_blocks(BlockOperands block, int64_t steps,
                                     const Meanwhile* meanwhile) {
  if (meanwhile == nullptr)
    return multiply_some<Operands, RowTiles, ColumnTiles, Where>(block, steps);
  for (; steps > 0; steps -= kStepsAtATime) {
    multiply_some<Operands, RowTiles, ColumnTiles, Where>(
        block, steps < kStepsAtATime ? steps : kStepsAtATime);
    meanwhile->take_part(meanwhile->work);
  }
}

// Calls visit.template operator()<row tile, column tile>() for each tile of sums.
template <int RowTiles, int ColumnTiles, class Visit, int Index = 0>
FUSEDRNN_INLINE void for_sums(const Visit& visit) {
  visit.template operator()<Index / ColumnTiles, Index % ColumnTiles>();
  if constexpr (Index + 1 < RowTiles * ColumnTiles) {
    for_sums<RowTiles, ColumnTiles, Visit, Index + 1>(visit);
  }
}

constexpr int kSumBytes = 4;

// Columns [Column, N) of a product, as many at a time as there are tiles for their sums. These
// begin with begin[N * 16]; null: zeros.
template <class Operands, int N, int RowTiles, Weights Where, int Column, class Product>
FUSEDRNN_INLINE void run_columns(const Product& product, const void* begin,
                                 const BlockOperands& block) {
  constexpr int kMost = 4 / RowTiles;
  constexpr int kColumns = N - Column < kMost ? N - Column : kMost;
  const int64_t out_stride = product.out_row * kSumBytes;
  char* const out = reinterpret_cast<char*>(product.out) + Column * kTileRowBytes;
  for_sums<RowTiles, kColumns>([&]<int r, int c>() FUSEDRNN_LAMBDA {
    constexpr int kTile = sum_tile<RowTiles>(r, c);
    if (begin == nullptr) {
      clear_tile<kTile>();
    } else {  // the same for every row
      load_tile<kTile>(static_cast<const char*>(begin) + (Column + c) * kTileRowBytes, 0);
    }
  });
  BlockOperands columns = block;
  columns.weights += Column * kTileRowBytes;
  columns.ahead += product.depth * Operands::kBytes * kTileRows / kAskingBlocks * Column;
  multiply_blocks<Operands, RowTiles, kColumns, Where>(
      columns, product.depth * Operands::kBytes / kTileRowBytes, product.meanwhile);
  for_sums<RowTiles, kColumns>([&]<int r, int c>() FUSEDRNN_LAMBDA {
    store_tile<sum_tile<RowTiles>(r, c)>(out + r * kTileRows * out_stride + c * kTileRowBytes,
                                         out_stride);
  });
  if constexpr (Column + kColumns < N) {
    run_columns<Operands, N, RowTiles, Where, Column + kColumns>(product, begin, block);
  }
}

template <class Operands, int N, int RowTiles, Weights Where, class Product>
__attribute__((noinline)) void run_block(const Product& product, const void* begin,
                                         const char* ahead = nullptr) {
  BlockOperands block;
  block.rows = reinterpret_cast<const char*>(product.rows[0]);
  block.row_stride = product.rows_stride * Operands::kBytes;
  block.lower_rows = kTileRows * block.row_stride;
  block.row_step = kTileRowBytes;
  block.weights = reinterpret_cast<const char*>(product.weights);
  block.weight_stride = N * kTileRowBytes;
  block.weight_step = kTileRows * block.weight_stride;
  block.ahead = ahead;
  run_columns<Operands, N, RowTiles, Where, 0>(product, begin, block);
}

// Weights of this many bytes stay in the first-level cache from one pass over them to the next.
constexpr int64_t kStayingBytes = 32 << 10;

// The rows of a tile, for whose height the registers are configured, times one panel of N vectors.
template <class Operands, int N, class Product>
FUSEDRNN_INLINE void run_matrix_product(const Product& product, const void* begin,
                                        const Tile& tile) {
  const int64_t panel_bytes = product.depth * Operands::kBytes * N * kTileRows;
  const bool high = tile.height() > kTileRows;
  if (tile.block_panels * panel_bytes <= kStayingBytes) {
    if (high) {
      run_block<Operands, N, 2, Weights::staying>(product, begin);
    } else {
      run_block<Operands, N, 1, Weights::staying>(product, begin);
    }
  } else if (!high) {
    run_block<Operands, N, 1, Weights::passing>(product, begin);
  } else if (!tile.far_weights || tile.index >= kAskingBlocks) {
    run_block<Operands, N, 2, Weights::passing>(product, begin);
  } else {
    const auto* const next = product.weights + (tile.ahead - tile.panel) * product.weights_stride;
    run_block<Operands, N, 2, Weights::far>(
        product, begin,
        reinterpret_cast<const char*>(next) + tile.index * panel_bytes / kAskingBlocks);
  }
}

struct AmxUnit {
  static constexpr bool kPresent = true;
  static constexpr int kRows = 2 * kTileRows;
  static constexpr int kFewestRows = 4;
  using Registers = TileRegisters;
};

// Sums are exact in 32 bits, the same as without AMX.
template <>
struct MatrixUnit<Offset8, Int8> : AmxUnit {
  static constexpr int kDepth = kTileRowBytes;

  template <int N, class Product>
  static FUSEDRNN_MEMBER void run(const Product& product, const Tile& tile) {
    using V = Vec<float>;
    run_matrix_product<Int8Operands, N>(product, product.start, tile);
    for (int64_t m = 0; m < tile.height(); ++m) {
      float* const out = product.out + m * product.out_row;
      const V row_scale = V::set(product.row_scale[m]);
      FUSEDRNN_UNROLL
      for (int n = 0; n < N; ++n) {
        const V sum = Dot<Offset8, Int8>::value(_mm512_loadu_si512(out + n * V::width));
        const V scale = V::load(product.scale + n * V::width) * row_scale;
        fma(sum, scale, V::load(product.bias + n * V::width)).store(out + n * V::width);
      }
    }
  }
};

template <>
struct MatrixUnit<Bf16, Bf16> : AmxUnit {
  static constexpr int kDepth = kTileRowBytes / 2;

  template <int N, class Product>
  static FUSEDRNN_MEMBER void run(const Product& product, const Tile& tile) {
    run_matrix_product<Bf16Operands, N>(product, product.bias, tile);
  }

  // Columns [column, column + kRows) of `depth` rows of bfloat16 numbers, transposed into the tiles
  // that add_block() multiplies: [column / 16][k / 32][16][32], zero beyond `depth` and where a row
  // is null.
  static void pack_transposed(const Bf16* const* rows, int64_t column, int64_t depth,
                              Bf16* packed) {
    const auto words_of = [&](int64_t k) FUSEDRNN_LAMBDA {
      return k < depth && rows[k] != nullptr ? words(rows[k] + column) : _mm512_setzero_si512();
    };
    for (int half = 0; half < 2; ++half, column += kTileRows) {
      for (int64_t k = 0; k < depth; k += kDepth, packed += kTileRows * kDepth) {
        Vec<float> pairs[kTileRows];  // of k, one a lane and column
        FUSEDRNN_UNROLL
        for (int i = 0; i < kTileRows; ++i) {
          const int64_t at = k + 2 * i;
          const __m512i low = words_of(at), high = words_of(at + 1);
          pairs[i] = {_mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)))};
        }
        Vec<float>::transpose(pairs);
        FUSEDRNN_UNROLL
        for (int i = 0; i < kTileRows; ++i) {
          _mm512_storeu_ps(reinterpret_cast<float*>(packed + i * kDepth), pairs[i].v);
        }
      }
    }
  }

  // out[m][n] (+)= sum over k of a[k][m] * b[k][n], m < height, n < columns; a as pack_transposed()
  // leaves it, b a panel of the weight gradients' inputs.
  static void add_block(const Bf16* a, const Bf16* b, int64_t depth, float* out, int64_t stride,
                        int height, int64_t columns, bool add) {
    const int64_t tiles =
        columns < kPanel ? (columns + kTileRows - 1) / kTileRows : kPanel / kTileRows;
    for (int64_t tile = 0; tile < tiles; tile += 2) {
      const GradientBlock block{
          a,      b + tile * kTileRows * 2,   depth, out + tile * kTileRows, stride,
          height, columns - tile * kTileRows, add};
      if (height > kTileRows) {
        tile + 1 < tiles ? add_tiles<2, 2>(block) : add_tiles<2, 1>(block);
      } else {
        tile + 1 < tiles ? add_tiles<1, 2>(block) : add_tiles<1, 1>(block);
      }
    }
  }

 private:
  static constexpr int kPanel = 64;  // columns of a panel of the inputs

  // 16 bfloat16 numbers, each in the lower half of 32 bits.
  static FUSEDRNN_MEMBER __m512i words(const Bf16* p) {
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }

  struct GradientBlock {
    const Bf16* a;
    const Bf16* b;
    int64_t depth;
    float* out;
    int64_t stride;
    int height;
    int64_t columns;
    bool add;
  };

  template <int RowTiles, int ColumnTiles>
  __attribute__((noinline)) static void add_tiles(const GradientBlock& block) {
    const int64_t steps = (block.depth + kDepth - 1) / kDepth;
    for_sums<RowTiles, ColumnTiles>([&]<int r, int c>() FUSEDRNN_LAMBDA {
      begin_sums<sum_tile<RowTiles>(r, c)>(block, r * kTileRows, c * kTileRows);
    });
    constexpr int64_t kTileBytes = kTileRows * kTileRowBytes;
    constexpr int64_t kStride = kPanel * 2 * sizeof(Bf16);
    BlockOperands operands{
        reinterpret_cast<const char*>(block.a), kTileRowBytes, steps * kTileBytes,  kTileBytes,
        reinterpret_cast<const char*>(block.b), kStride,       kTileRows * kStride,
    };
    multiply_some<Bf16Operands, RowTiles, ColumnTiles, Weights::staying>(operands, steps);
    for_sums<RowTiles, ColumnTiles>([&]<int r, int c>() FUSEDRNN_LAMBDA {
      end_sums<sum_tile<RowTiles>(r, c)>(block, r * kTileRows, c * kTileRows);
    });
  }

  static FUSEDRNN_MEMBER bool is_whole(const GradientBlock& block, int row, int column) {
    return block.height - row >= kTileRows && block.columns - column >= kTileRows;
  }
  static FUSEDRNN_MEMBER int at_most_16(int64_t n) {
    return n < kTileRows ? static_cast<int>(n) : kTileRows;
  }

  template <int Tile>
  static FUSEDRNN_MEMBER void begin_sums(const GradientBlock& block, int row, int column) {
    const float* const src = block.out + row * block.stride + column;
    if (!block.add) {
      clear_tile<Tile>();
    } else if (is_whole(block, row, column)) {
      load_tile<Tile>(src, block.stride * kSumBytes);
    } else {
      alignas(64) float sums[kTileRows * kTileRows] = {};
      for (int m = 0; m < at_most_16(block.height - row); ++m) {
        Vec<float>::load(src + m * block.stride, at_most_16(block.columns - column))
            .store(sums + m * kTileRows);
      }
      load_tile<Tile>(sums, kTileRowBytes);
    }
  }

  template <int Tile>
  static FUSEDRNN_MEMBER void end_sums(const GradientBlock& block, int row, int column) {
    float* const dst = block.out + row * block.stride + column;
    if (is_whole(block, row, column)) {
      store_tile<Tile>(dst, block.stride * kSumBytes);
    } else {
      alignas(64) float sums[kTileRows * kTileRows];
      store_tile<Tile>(sums, kTileRowBytes);
      for (int m = 0; m < at_most_16(block.height - row); ++m) {
        Vec<float>::load(sums + m * kTileRows)
            .store(dst + m * block.stride, at_most_16(block.columns - column));
      }
    }
  }
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
