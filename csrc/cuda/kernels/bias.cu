#include "cuda/kernels/bias.h"

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
    sum_parts(BiasGradients g, int64_t part_rows, int64_t parts, int64_t columns) {
  for_elements(parts, columns, [&](int64_t part, int64_t column) {
    const int64_t begin = part * part_rows;
    const int64_t end = begin + part_rows < g.rows ? begin + part_rows : g.rows;
    const Delta* src = static_cast<const Delta*>(g.delta) + begin * g.ld_delta + column;
    Real sum = 0;
    for (int64_t row = begin; row < end; ++row, src += g.ld_delta) sum += device::load(src);
    static_cast<Real*>(g.parts)[part * columns + column] = sum;
  });
}

// An index that is not known to the compiler would put the array in local memory.
FUSEDRNN_DEVICE int block_of(const int (&blocks)[kMaxGates], int64_t gate) {
  int block = 0;
#pragma unroll
  for (int g = 0; g < kMaxGates; ++g) block = g == gate ? blocks[g] : block;
  return block;
}

template <class Edge, class Real>
__global__ void __launch_bounds__(kElementBlock) sum_biases(BiasGradients g, int64_t parts) {
  const auto sum = [&](int block, int64_t unit) {
    const int64_t columns = g.cell.deltas * g.H;
    const Real* src = static_cast<const Real*>(g.parts) + block * g.H + unit;
    Real total = 0;
    for (int64_t part = 0; part < parts; ++part, src += columns) total += *src;
    return total;
  };
  for_elements(g.cell.gates, g.H, [&](int64_t gate, int64_t unit) {
    const int64_t at = gate * g.H + unit;
    if (g.db_ih != nullptr) {
      device::store(static_cast<Edge*>(g.db_ih) + at,
                    sum(block_of(g.cell.input_delta, gate), unit));
    }
    if (g.db_hh != nullptr) {
      device::store(static_cast<Edge*>(g.db_hh) + at,
                    sum(block_of(g.cell.recurrent_delta, gate), unit));
    }
  });
}

template <class Edge, class Delta, class Real>
void run(const BiasGradients& g, cudaStream_t stream) {
  const int64_t parts = bias_parts(g.rows), columns = g.cell.deltas * g.H;
  device::launch(sum_parts<Delta, Real>, shape_of_elements(parts, columns, "sum_parts"), stream, g,
                 rows_of_part(g.rows), parts, columns);
  device::launch(sum_biases<Edge, Real>, shape_of_elements(g.cell.gates, g.H, "sum_biases"), stream,
                 g, parts);
}

}  // namespace

int64_t bias_parts(int64_t rows) {
  const int64_t part = rows_of_part(rows);
  return (rows + part - 1) / part;
}

void bias_gradients(const BiasGradients& gradients, const Unit& unit, cudaStream_t stream) {
  switch (unit.edge) {
    case Dtype::float32:
      return unit.mixed ? run<float, Bf16, float>(gradients, stream)
                        : run<float, float, float>(gradients, stream);
    case Dtype::float64:
      return run<double, double, double>(gradients, stream);
    case Dtype::bfloat16:
      return run<Bf16, Bf16, float>(gradients, stream);
    case Dtype::float16:
      return run<Half, float, float>(gradients, stream);
  }
}

}  // namespace fusedrnn::cuda
