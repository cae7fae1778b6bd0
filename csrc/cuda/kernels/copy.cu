#include "cuda/kernels/copy.h"

#include "core/error.h"
#include "cuda/device/launch.h"
#include "cuda/kernels/elements.h"
#include "cuda/kernels/flags.h"
#include "cuda/kernels/format.h"

namespace fusedrnn::cuda {
namespace {

template <class From, class To>
__global__ void __launch_bounds__(kElementBlock) copy_kernel(Copy c) {
  for_elements(c.T * c.B, c.n, [&](int64_t row, int64_t i) {
    const int64_t t = row / c.B, b = row - t * c.B;
    const bool read =
        c.from.data != nullptr && (c.flags == nullptr || (c.flags[row] & c.mask) == c.wanted);
    using Real = decltype(device::load(static_cast<const From*>(nullptr)));
    Real value = 0;
    if (read) {
      value = device::load(static_cast<const From*>(c.from.data) + t * c.from.t_stride +
                           b * c.from.b_stride + i);
    }
    To* const to = static_cast<To*>(c.to.data) + t * c.to.t_stride + b * c.to.b_stride + i;
    if (c.accumulate) value += device::load(to);
    device::store(to, value);
  });
}

template <class From, class To>
void launch_copy(const Copy& copy, cudaStream_t stream) {
  device::launch(copy_kernel<From, To>, shape_of_elements(copy.T * copy.B, copy.n, "copy_rows"),
                 stream, copy);
}

struct CopyKernel {
  Dtype from, to;
  void (*launch)(const Copy& copy, cudaStream_t stream);
};
template <class From, class To>
constexpr CopyKernel kCopy = {kDtypeOf<From>, kDtypeOf<To>, launch_copy<From, To>};
constexpr CopyKernel kCopyKernels[] = {
    kCopy<double, double>, kCopy<float, float>, kCopy<float, Bf16>, kCopy<float, Half>,
    kCopy<Bf16, float>,    kCopy<Bf16, Bf16>,   kCopy<Half, float>, kCopy<Half, Half>};

template <class Edge, class Real>
__global__ void __launch_bounds__(kElementBlock) initial_gradient_kernel(InitialGradient g) {
  for_elements(g.B, g.n, [&](int64_t b, int64_t i) {
    Real sum = static_cast<const Real*>(g.carry)[b * g.ld + i];
    if (g.product != nullptr && is_multiplied(g.flags, b)) {
      sum += static_cast<const Real*>(g.product)[b * g.ld + i];
    }
    device::store(static_cast<Edge*>(g.to.data) + b * g.to.stride + i, sum);
  });
}

template <class Edge, class Real>
void launch_initial_gradient(const InitialGradient& gradient, cudaStream_t stream) {
  device::launch(initial_gradient_kernel<Edge, Real>,
                 shape_of_elements(gradient.B, gradient.n, "initial_gradient"), stream, gradient);
}

}  // namespace

void copy_rows(const Copy& copy, Dtype from, Dtype to, cudaStream_t stream) {
  for (const CopyKernel& kernel : kCopyKernels) {
    if (kernel.from == from && kernel.to == to) return kernel.launch(copy, stream);
  }
  throw Error(FUSEDRNN_INTERNAL, "copy_rows: no kernel for this pair of types");
}

void copy_matrix(const Matrix& from, Dtype from_type, const Matrix& to, Dtype to_type, int64_t rows,
                 int64_t n, cudaStream_t stream) {
  Copy copy;
  copy.B = rows;
  copy.n = n;
  copy.from = {from.data, 0, from.stride};
  copy.to = {to.data, 0, to.stride};
  copy_rows(copy, from_type, to_type, stream);
}

void initial_gradient(const InitialGradient& gradient, Dtype to, cudaStream_t stream) {
  switch (to) {
    case Dtype::float32:
      return launch_initial_gradient<float, float>(gradient, stream);
    case Dtype::float64:
      return launch_initial_gradient<double, double>(gradient, stream);
    case Dtype::bfloat16:
      return launch_initial_gradient<Bf16, float>(gradient, stream);
    case Dtype::float16:
      return launch_initial_gradient<Half, float>(gradient, stream);
  }
}

}  // namespace fusedrnn::cuda
