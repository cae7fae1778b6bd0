#include "cuda/kernels/vectors.h"

#include "cuda/device/launch.h"
#include "cuda/kernels/elements.h"
#include "cuda/kernels/format.h"

namespace fusedrnn::cuda {
namespace {

// At least 64 rows a part, so that the second stage is short; at most 512 parts.
int64_t rows_of_part(int64_t rows) {
  constexpr int64_t kFewest = 64, kMostParts = 512;
  return std::max(kFewest, (rows + kMostParts - 1) / kMostParts);
}

template <class Delta, class Real>
__global__ void __launch_bounds__(kElementBlock)
    sum_rows(VectorSums v, int64_t part_rows, int64_t parts) {
  for_elements(parts, v.columns, [&](int64_t part, int64_t column) {
    const int64_t begin = part * part_rows;
    const int64_t end = begin + part_rows < v.rows ? begin + part_rows : v.rows;
    const Delta* src = static_cast<const Delta*>(v.delta) + begin * v.ld_delta + column;
    Real sum = 0;
    for (int64_t row = begin; row < end; ++row, src += v.ld_delta) sum += device::load(src);
    static_cast<Real*>(v.parts)[part * v.columns + column] = sum;
  });
}

// An index that is not known to the compiler would put the array in local memory.
FUSEDRNN_DEVICE VectorSum element(const VectorSum (&sums)[kMaxVectorBlocks], int64_t index) {
  VectorSum found = sums[0];
#pragma unroll
  for (int i = 1; i < kMaxVectorBlocks; ++i) {
    if (i == index) found = sums[i];
  }
  return found;
}

template <class Edge, class Real>
__global__ void __launch_bounds__(kElementBlock)
    sum_all_parts(VectorSums v, int64_t parts, int64_t widest) {
  for_elements(v.count, widest, [&](int64_t i, int64_t unit) {
    const VectorSum sum = element(v.sums, i);
    if (unit >= sum.n) return;
    const Real* src = static_cast<const Real*>(v.parts) + sum.column + unit;
    Real total = 0;
    for (int64_t part = 0; part < parts; ++part, src += v.columns) total += *src;
    device::store(static_cast<Edge*>(sum.to) + unit, total);
  });
}

template <class Edge, class Delta, class Real>
void run(const VectorSums& v, cudaStream_t stream) {
  const int64_t parts = sum_parts(v.rows);
  int64_t widest = 0;
  for (int i = 0; i < v.count; ++i) widest = std::max(widest, v.sums[i].n);
  device::launch(sum_rows<Delta, Real>, shape_of_elements(parts, v.columns, "sum_rows"), stream, v,
                 rows_of_part(v.rows), parts);
  device::launch(sum_all_parts<Edge, Real>, shape_of_elements(v.count, widest, "sum_all_parts"),
                 stream, v, parts, widest);
}

}  // namespace

int64_t sum_parts(int64_t rows) {
  const int64_t part = rows_of_part(rows);
  return (rows + part - 1) / part;
}

void sum_vectors(const VectorSums& sums, const Unit& unit, cudaStream_t stream) {
  switch (unit.edge) {
    case Dtype::float32:
      return unit.mixed ? run<float, Bf16, float>(sums, stream)
                        : run<float, float, float>(sums, stream);
    case Dtype::float64:
      return run<double, double, double>(sums, stream);
    case Dtype::bfloat16:
      return run<Bf16, Bf16, float>(sums, stream);
    case Dtype::float16:
      return run<Half, float, float>(sums, stream);
  }
}

}  // namespace fusedrnn::cuda
