#include "cuda/kernels/vectors.h"

#include "cuda/device/launch.h"
#include "cuda/device/math.h"
#include "cuda/kernels/elements.h"
#include "cuda/kernels/format.h"

namespace fusedrnn::cuda {
namespace {

// At least 64 rows a part, so that the second stage is short; at most 512 parts.
constexpr int64_t kFewest = 64, kMostParts = 512;
int64_t rows_of_part(int64_t rows) {
  return std::max(kFewest, (rows + kMostParts - 1) / kMostParts);
}

template <class Delta, class Real>
__global__ void __launch_bounds__(kElementBlock)
    sum_rows(Deltas deltas, int64_t part_rows, int64_t parts, Real* to) {
  for_elements(parts, deltas.columns, [&](int64_t part, int64_t column) {
    const int64_t begin = part * part_rows;
    const int64_t end = begin + part_rows < deltas.rows ? begin + part_rows : deltas.rows;
    const Delta* src = static_cast<const Delta*>(deltas.data) + begin * deltas.ld + column;
    Real sum = 0;
    for (int64_t row = begin; row < end; ++row, src += deltas.ld) sum += device::load(src);
    to[part * deltas.columns + column] = sum;
  });
}

constexpr int kMostSums = 16;  // of one launch
struct Sums {
  VectorSum sums[kMostSums];
};

// An index that is not known to the compiler would put the array in local memory.
FUSEDRNN_DEVICE VectorSum element(const VectorSum (&sums)[kMostSums], int64_t index) {
  VectorSum found = sums[0];
#pragma unroll
  for (int i = 1; i < kMostSums; ++i) {
    if (i == index) found = sums[i];
  }
  return found;
}

template <class Edge, class Real>
__global__ void __launch_bounds__(kElementBlock)
    sum_all_parts(Sums s, int64_t count, int64_t widest, const Real* parts, int64_t part_count,
                  int64_t columns) {
  for_elements(count, widest, [&](int64_t index, int64_t i) {
    const VectorSum sum = element(s.sums, index);
    if (i >= sum.n) return;
    const Real* src = parts + sum.column + i;
    Real total = 0;
    for (int64_t part = 0; part < part_count; ++part, src += columns) total += *src;
    device::store(static_cast<Edge*>(sum.to) + i, total);
  });
}

template <class Delta, class Real>
void into_parts(const Deltas& deltas, void* parts, cudaStream_t stream) {
  const int64_t count = sum_parts(deltas.rows);
  device::launch(sum_rows<Delta, Real>, shape_of_elements(count, deltas.columns, "sum_rows"),
                 stream, deltas, rows_of_part(deltas.rows), count, static_cast<Real*>(parts));
}

template <class Edge, class Real>
void join_parts(int64_t count, int64_t columns, const void* parts, std::span<const VectorSum> sums,
                cudaStream_t stream) {
  const Real* const memory = static_cast<const Real*>(parts);
  while (!sums.empty()) {
    Sums some{};
    const auto taken = std::min<size_t>(sums.size(), kMostSums);
    std::copy_n(sums.begin(), taken, some.sums);
    int64_t widest = 0;
    for (const VectorSum& sum : some.sums) widest = std::max(widest, sum.n);
    device::launch(sum_all_parts<Edge, Real>,
                   shape_of_elements(static_cast<int64_t>(taken), widest, "sum_all_parts"), stream,
                   some, taken, widest, memory, count, columns);
    sums = sums.subspan(taken);
  }
}

// The Euclidean norm. Gradients that explode or vanish are what it is for, and their squares may
// leave the range of float64: they are of numbers over the largest.
template <class Real>
FUSEDRNN_DEVICE double norm(const Real* numbers, int64_t n) {
  double largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(numbers[i]);
    const double magnitude = d < 0 ? -d : d;
    if (magnitude > largest) largest = magnitude;
  }
  constexpr double kLargest = 1.7976931348623157e308;
  if (!(largest > 0 && largest <= kLargest)) largest = 1;  // zeros, or no numbers
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(numbers[i]) / largest;
    sum += d * d;
  }
  return largest * device::sqrt(sum);
}

template <class Real>
__global__ void __launch_bounds__(kElementBlock) norms_of_rows(StepNorms norms) {
  for_elements(norms.T, norms.B, [&](int64_t t, int64_t b) {
    const int64_t row = t * norms.B + b;
    norms.parts[row] = norm(static_cast<const Real*>(norms.from) + row * norms.ld, norms.n);
  });
}

__global__ void __launch_bounds__(kElementBlock) join_norms(StepNorms norms) {
  for_elements(1, norms.T,
               [&](int64_t, int64_t t) { norms.to[t] = norm(norms.parts + t * norms.B, norms.B); });
}

}  // namespace

void norms_of_steps(const StepNorms& norms, Dtype real, cudaStream_t stream) {
  const auto kernel = real == Dtype::float64  ? norms_of_rows<double>
                      : real == Dtype::dual64 ? norms_of_rows<Dual<double>>
                      : real == Dtype::dual32 ? norms_of_rows<Dual<float>>
                                              : norms_of_rows<float>;
  device::launch(kernel, shape_of_elements(norms.T, norms.B, "norms_of_rows"), stream, norms);
  device::launch(join_norms, shape_of_elements(1, norms.T, "join_norms"), stream, norms);
}

int64_t sum_parts(int64_t rows) {
  const int64_t part = rows_of_part(rows);
  return (rows + part - 1) / part;
}

int64_t most_sum_parts(int64_t rows) {
  return std::min((rows + kFewest - 1) / kFewest, kMostParts);
}

void sum_into_parts(const Deltas& deltas, void* parts, const Types& types, cudaStream_t stream) {
  switch (types.delta) {
    case Dtype::float32:
      return into_parts<float, float>(deltas, parts, stream);
    case Dtype::float64:
      return into_parts<double, double>(deltas, parts, stream);
    case Dtype::bfloat16:
      return into_parts<Bf16, float>(deltas, parts, stream);
    case Dtype::float16:
      return into_parts<Half, float>(deltas, parts, stream);
    case Dtype::dual32:
      return into_parts<Dual<float>, Dual<float>>(deltas, parts, stream);
    case Dtype::dual64:
      return into_parts<Dual<double>, Dual<double>>(deltas, parts, stream);
  }
}

void sum_vectors(int64_t part_count, int64_t columns, const void* parts,
                 std::span<const VectorSum> sums, const Types& types, cudaStream_t stream) {
  switch (types.edge) {
    case Dtype::float32:
      return join_parts<float, float>(part_count, columns, parts, sums, stream);
    case Dtype::float64:
      return join_parts<double, double>(part_count, columns, parts, sums, stream);
    case Dtype::bfloat16:
      return join_parts<Bf16, float>(part_count, columns, parts, sums, stream);
    case Dtype::float16:
      return join_parts<Half, float>(part_count, columns, parts, sums, stream);
    case Dtype::dual32:
      return join_parts<Dual<float>, Dual<float>>(part_count, columns, parts, sums, stream);
    case Dtype::dual64:
      return join_parts<Dual<double>, Dual<double>>(part_count, columns, parts, sums, stream);
  }
}

}  // namespace fusedrnn::cuda
