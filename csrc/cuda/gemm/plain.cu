// c (+)= a * b by tiles in shared memory. A block computes a tile of c of 8*R rows by 64 columns,
// each of its 128 threads R rows by 4 columns of it; k goes by in steps of kDepth.
#include "cuda/gemm/plain.h"

#include <algorithm>

#include "core/error.h"
#include "cuda/device/launch.h"
#include "cuda/device/math.h"
#include "cuda/device/shared.h"
#include "cuda/device/sync.h"
#include "cuda/device/thread.h"
#include "cuda/kernels/format.h"

namespace fusedrnn::cuda {
namespace {

constexpr int kBlock = 128;
constexpr int kColumns = 4;                    // of c a thread computes
constexpr int kAcross = 16;                    // threads side by side
constexpr int kWidth = kColumns * kAcross;     // of a tile
constexpr int kRowThreads = kBlock / kAcross;  // threads on top of one another
constexpr int kDepth = 16;                     // of k at a time
constexpr int kPad = 4;                        // keeps columns of shared memory out of one bank
constexpr int64_t kBlockOfSums = 16;           // steps of kDepth that are summed on their own

template <int R>
constexpr int kHeight = R * kRowThreads;

// Elements (i, k) of a tile of an operand into shared memory at [k][i], zero beyond its edges.
// `across`: whether neighbours along i are neighbours in memory.
struct TileSource {
  int64_t stride;
  bool across;
  bool tfloat32;
  int64_t first, end;      // along i
  int64_t k_first, k_end;  // along k
};

template <int Extent, class Number, class Real>
FUSEDRNN_DEVICE void load_tile(const Number* data, const TileSource& s, device::Shared<Real> tile) {
  for (int e = device::thread(); e < Extent * kDepth; e += kBlock) {
    const int i = s.across ? e % Extent : e / kDepth;
    const int k = s.across ? e / Extent : e % kDepth;
    const int64_t row = s.first + i, depth = s.k_first + k;
    Real value = 0;
    if (row < s.end && depth < s.k_end) {
      value = device::load(data + (s.across ? depth * s.stride + row : row * s.stride + depth));
    }
    if constexpr (std::is_same_v<Number, float>) {
      if (s.tfloat32) value = device::to_tfloat32(value);
    }
    tile[k * (Extent + kPad) + i] = value;
  }
}

template <class Real, int R>
FUSEDRNN_DEVICE void add_to(Real (&total)[R][kColumns], Real (&sums)[R][kColumns]) {
#pragma unroll
  for (int i = 0; i < R; ++i) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      total[i][j] += sums[i][j];
      sums[i][j] = 0;
    }
  }
}

// The products of one step of kDepth.
template <int R, class Real>
FUSEDRNN_DEVICE void multiply_tiles(const device::Shared<Real>& a, const device::Shared<Real>& b,
                                    int row, int column, Real (&sums)[R][kColumns]) {
#pragma unroll
  for (int k = 0; k < kDepth; ++k) {
    Real left[R], right[kColumns];
#pragma unroll
    for (int i = 0; i < R; ++i) left[i] = a[k * (kHeight<R> + kPad) + row + i];
#pragma unroll
    for (int j = 0; j < kColumns; ++j) right[j] = b[k * (kWidth + kPad) + column + j];
#pragma unroll
    for (int i = 0; i < R; ++i) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) sums[i][j] = device::fma(left[i], right[j], sums[i][j]);
    }
  }
}

template <int R, class Number, class To, class Real>
FUSEDRNN_DEVICE void compute_tile(const Product& p, int64_t batch, int64_t tile_row,
                                  int64_t tile_column, device::Shared<Real> a_tile,
                                  device::Shared<Real> b_tile) {
  const Number* a = static_cast<const Number*>(p.a.data) + batch * p.a.batch_stride;
  const Number* b = static_cast<const Number*>(p.b.data) + batch * p.b.batch_stride;
  TileSource a_source{p.a.stride, p.a.transposed, p.tfloat32, tile_row, p.m, 0, p.k};
  TileSource b_source{p.b.stride, !p.b.transposed, p.tfloat32, tile_column, p.n, 0, p.k};
  const int row = device::thread() / kAcross * R;
  const int column = device::thread() % kAcross * kColumns;
  // Sums of many terms are taken in blocks, which keeps their rounding errors small.
  Real total[R][kColumns] = {}, sums[R][kColumns] = {};
  const int64_t steps = (p.k + kDepth - 1) / kDepth;
  for (int64_t step = 0; step < steps; ++step) {
    a_source.k_first = b_source.k_first = step * kDepth;
    load_tile<kHeight<R>>(a, a_source, a_tile);
    load_tile<kWidth>(b, b_source, b_tile);
    device::sync_threads();
    multiply_tiles<R>(a_tile, b_tile, row, column, sums);
    if ((step + 1) % kBlockOfSums == 0) add_to(total, sums);
    device::sync_threads();  // before the next step overwrites the tiles
  }
  add_to(total, sums);
  To* const c = static_cast<To*>(p.c.data) + batch * p.c.batch_stride;
#pragma unroll
  for (int i = 0; i < R; ++i) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const int64_t m = tile_row + row + i, n = tile_column + column + j;
      if (m >= p.m || n >= p.n) continue;
      To* const to = c + m * p.c.stride + n;
      Real value = total[i][j];
      if (p.accumulate) value += device::load(to);
      device::store(to, value);
    }
  }
}

template <int R, class Number, class To, class Real>
__global__ void __launch_bounds__(kBlock)
    plain_product(Product p, int64_t tiles, int64_t across, int64_t down) {
  device::SharedMemory shared;
  const auto a_tile = shared.take<Real>(kDepth * (kHeight<R> + kPad));
  const auto b_tile = shared.take<Real>(kDepth * (kWidth + kPad));
  for (int64_t tile = device::block_x(); tile < tiles; tile += device::blocks_x()) {
    const int64_t batch = tile / (across * down), place = tile - batch * across * down;
    compute_tile<R, Number, To>(p, batch, place / across * kHeight<R>, place % across * kWidth,
                                a_tile, b_tile);
  }
}

template <int R, class Number, class To, class Real>
void launch_tiles(const Product& p, cudaStream_t stream) {
  constexpr int64_t kLargestGrid = int64_t{1} << 30;
  const int64_t across = (p.n + kWidth - 1) / kWidth;
  const int64_t down = (p.m + kHeight<R> - 1) / kHeight<R>;
  const int64_t tiles = across * down * p.batch;
  device::LaunchShape shape;
  shape.grid_x = static_cast<int>(std::min(tiles, kLargestGrid));
  shape.block = kBlock;
  shape.shared_bytes = sizeof(Real) * kDepth * (kHeight<R> + kPad + kWidth + kPad);
  shape.name = "plain_product";
  device::launch(plain_product<R, Number, To, Real>, shape, stream, p, tiles, across, down);
}

template <class Number, class To, class Real>
void launch_product(const Product& p, cudaStream_t stream) {
  // As many as leave the sums in registers.
  constexpr int kFewRows = 2, kManyRows = sizeof(Real) == 4 ? 8 : sizeof(Real) == 8 ? 4 : 2;
  if (p.m <= kHeight<kFewRows>) {
    launch_tiles<kFewRows, Number, To, Real>(p, stream);
  } else {
    launch_tiles<kManyRows, Number, To, Real>(p, stream);
  }
}

}  // namespace

void PlainGemm::run(const Product& p, void*, cudaStream_t stream) {
  if (p.operand == Dtype::float32 && p.result == Dtype::float32) {
    launch_product<float, float, float>(p, stream);
  } else if (p.operand == Dtype::float64 && p.result == Dtype::float64) {
    launch_product<double, double, double>(p, stream);
  } else if (p.operand == Dtype::bfloat16 && p.result == Dtype::float32) {
    launch_product<Bf16, float, float>(p, stream);
  } else if (p.operand == Dtype::bfloat16 && p.result == Dtype::bfloat16) {
    launch_product<Bf16, Bf16, float>(p, stream);
  } else if (p.operand == Dtype::float16 && p.result == Dtype::float32) {
    launch_product<Half, float, float>(p, stream);
  } else if (p.operand == Dtype::dual32 && p.result == Dtype::dual32) {
    launch_product<Dual<float>, Dual<float>, Dual<float>>(p, stream);
  } else if (p.operand == Dtype::dual64 && p.result == Dtype::dual64) {
    launch_product<Dual<double>, Dual<double>, Dual<double>>(p, stream);
  } else {
    throw Error(FUSEDRNN_INTERNAL, "plain_product: no kernel for this pair of types");
  }
}

}  // namespace fusedrnn::cuda
