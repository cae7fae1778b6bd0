#include "cuda/kernels/dropout.h"

#include "cells/dropout.h"
#include "cuda/device/launch.h"
#include "cuda/kernels/elements.h"
#include "cuda/kernels/format.h"

namespace fusedrnn::cuda {
namespace {

struct Drop {
  DropCall call;
  cells::DropRate rate;
};

// A thread draws the numbers of as many units as there are in one draw.
template <class Edge, class Real>
__global__ void __launch_bounds__(kElementBlock) drop_kernel(Drop drop) {
  constexpr int kUnits = cells::kUnitsOfDraw;
  const DropCall& c = drop.call;
  const Real scale = static_cast<typename RealOf<Edge>::plain>(drop.rate.scale);
  for_elements(c.T * c.B, (c.n + kUnits - 1) / kUnits, [&](int64_t row, int64_t block) {
    const int64_t t = row / c.B, b = row - t * c.B;
    const Edge* const from =
        static_cast<const Edge*>(c.from.data) + t * c.from.t_stride + b * c.from.b_stride;
    Edge* const to = static_cast<Edge*>(c.to.data) + t * c.to.t_stride + b * c.to.b_stride;
    const cells::Philox drawn =
        cells::philox(c.seed, cells::counter_of(c.row, c.first_step + t, b, block));
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      const int64_t unit = block * kUnits + i;
      if (unit >= c.n) break;
      const bool kept = drawn.words[i] > drop.rate.last_dropped;
      const Real scaled = kept ? device::load(from + unit) * scale : Real(0);
      device::store(to + unit, scaled);
    }
  });
}

template <class Edge, class Real>
void launch_drop(const DropCall& call, cudaStream_t stream) {
  const int64_t blocks = (call.n + cells::kUnitsOfDraw - 1) / cells::kUnitsOfDraw;
  const Drop drop{call, cells::DropRate::of(call.rate)};
  device::launch(drop_kernel<Edge, Real>, shape_of_elements(call.T * call.B, blocks, "drop"),
                 stream, drop);
}

// As above.
__global__ void __launch_bounds__(kElementBlock)
    hits_kernel(Hits hits, uint32_t last, uint8_t* mask) {
  constexpr int kUnits = cells::kUnitsOfDraw;
  for_elements(hits.T * hits.B, (hits.n + kUnits - 1) / kUnits, [&](int64_t row, int64_t block) {
    const int64_t t = row / hits.B, b = row - t * hits.B;
    const cells::Philox drawn =
        cells::philox(hits.seed, cells::counter_of(hits.row, hits.first_step + t, b, block));
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      const int64_t unit = block * kUnits + i;
      if (unit >= hits.n) break;
      mask[row * hits.n + unit] = drawn.words[i] > last ? 0 : 1;
    }
  });
}

}  // namespace

void draw_hits(const Hits& hits, uint8_t* mask, cudaStream_t stream) {
  const int64_t blocks = (hits.n + cells::kUnitsOfDraw - 1) / cells::kUnitsOfDraw;
  device::launch(hits_kernel, shape_of_elements(hits.T * hits.B, blocks, "draw_hits"), stream, hits,
                 cells::DropRate::of(hits.rate).last_dropped, mask);
}

void drop_elements(const DropCall& call, cudaStream_t stream) {
  switch (call.dtype) {
    case Dtype::float32:
      return launch_drop<float, float>(call, stream);
    case Dtype::float64:
      return launch_drop<double, double>(call, stream);
    case Dtype::bfloat16:
      return launch_drop<Bf16, float>(call, stream);
    case Dtype::float16:
      return launch_drop<Half, float>(call, stream);
    case Dtype::dual32:
      return launch_drop<Dual<float>, Dual<float>>(call, stream);
    case Dtype::dual64:
      return launch_drop<Dual<double>, Dual<double>>(call, stream);
  }
}

}  // namespace fusedrnn::cuda
