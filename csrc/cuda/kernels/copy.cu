#include "cuda/kernels/copy.h"

#include "core/error.h"
#include "cuda/device/launch.h"
#include "cuda/kernels/elements.h"
#include "cuda/kernels/flags.h"
#include "cuda/kernels/format.h"

namespace fusedrnn::cuda {
namespace {

FUSEDRNN_DEVICE int64_t offset_of(const Copy& c, const Sequence& s, Rows rows, int64_t t,
                                  int64_t b) {
  if (rows == Rows::packed && c.order.first_rows != nullptr)
    return (c.order.first_rows[t] - c.order.first_rows[0] + b) * s.b_stride;
  if (rows == Rows::numbers) b = number_of(c.order.numbers, b);
  if (rows == Rows::ends) {
    t = c.order.ends[b];
    if (c.alternates) t = (t + (c.turned ? 1 : 0)) & 1;
  }
  return t * s.t_stride + b * s.b_stride;
}

FUSEDRNN_DEVICE bool is_left_out(const Copy& c, int64_t t, int64_t b) {
  if (!c.only_living && !c.only_missing) return false;
  const bool lives = b < c.order.first_rows[t + 1] - c.order.first_rows[t];
  return lives ? c.only_missing : c.only_living;
}

template <class From, class To>
__global__ void __launch_bounds__(kElementBlock) copy_kernel(Copy c) {
  for_elements(c.T * c.B, c.n, [&](int64_t row, int64_t i) {
    const int64_t t = row / c.B, b = row - t * c.B;
    if (is_left_out(c, t, b)) return;
    const bool read =
        c.from.data != nullptr && (c.flags == nullptr || (c.flags[row] & c.mask) == c.wanted);
    using Real = decltype(device::load(static_cast<const From*>(nullptr)));
    Real value = 0;
    if (read) {
      value = device::load(static_cast<const From*>(c.from.data) +
                           offset_of(c, c.from, c.from_rows, t, b) + i);
    }
    if (c.dropped != nullptr) {
      const Real scale = static_cast<typename RealOf<From>::plain>(c.scale);
      value = c.dropped[number_of(c.order.numbers, b) * c.n + i] != 0 ? Real(0) : value * scale;
    }
    To* const to = static_cast<To*>(c.to.data) + offset_of(c, c.to, c.to_rows, t, b) + i;
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
constexpr CopyKernel kCopyKernels[] = {kCopy<double, double>,
                                       kCopy<float, float>,
                                       kCopy<float, Bf16>,
                                       kCopy<float, Half>,
                                       kCopy<Bf16, float>,
                                       kCopy<Bf16, Bf16>,
                                       kCopy<Half, float>,
                                       kCopy<Half, Half>,
                                       kCopy<Dual<float>, Dual<float>>,
                                       kCopy<Dual<double>, Dual<double>>};

template <class To>
__global__ void __launch_bounds__(kElementBlock) clear_kernel(Copy c) {
  for_elements(c.T * c.B, c.n, [&](int64_t row, int64_t i) {
    if ((c.flags[row] & c.mask) == c.wanted) return;
    const int64_t t = row / c.B, b = row - t * c.B;
    static_cast<To*>(c.to.data)[t * c.to.t_stride + b * c.to.b_stride + i] = To{};
  });
}

template <class To>
void launch_clear(const Copy& copy, cudaStream_t stream) {
  device::launch(clear_kernel<To>, shape_of_elements(copy.T * copy.B, copy.n, "clear_rows"), stream,
                 copy);
}

template <class Edge, class Real>
__global__ void __launch_bounds__(kElementBlock) initial_gradient_kernel(InitialGradient g) {
  for_elements(g.B, g.n, [&](int64_t b, int64_t i) {
    const int64_t number = number_of(g.numbers, b);
    if (g.reset != nullptr && g.product != nullptr && is_cut(g.flags, b)) {
      static_cast<Real*>(g.reset)[number * g.ld + i] +=
          static_cast<const Real*>(g.product)[b * g.ld + i];
    }
    if (g.to.data == nullptr) return;
    Real sum = static_cast<const Real*>(g.carry)[b * g.ld + i];
    if (g.product != nullptr && is_multiplied(g.flags, b)) {
      sum += static_cast<const Real*>(g.product)[b * g.ld + i];
    }
    device::store(static_cast<Edge*>(g.to.data) + number * g.to.stride + i, sum);
  });
}

template <class Edge, class Real>
void launch_initial_gradient(const InitialGradient& gradient, cudaStream_t stream) {
  device::launch(initial_gradient_kernel<Edge, Real>,
                 shape_of_elements(gradient.B, gradient.n, "initial_gradient"), stream, gradient);
}

template <class Edge, class Real>
__global__ void __launch_bounds__(kElementBlock) padding_gradient_kernel(PaddingGradient g) {
  for_elements(g.B, g.n, [&](int64_t b, int64_t i) {
    const int64_t end = g.order.ends[b];
    // In reverse the walk takes the step behind a sequence along, to whose state its product goes.
    const int64_t first = g.reverse && end > 0 ? end + 1 : end;
    if (first >= g.T) return;
    const bool shown = is_shown(g.flags + (g.T - 1) * g.B, b);
    if (!shown && !(g.limit > 0)) return;
    Real* const carry = static_cast<Real*>(g.carry) + b * g.ld + i;
    const int64_t number = g.order.numbers[b];
    const auto at = [&](const Sequence& dy, int64_t t) {
      const int64_t row = t * dy.t_stride + number * dy.b_stride;
      return device::load(static_cast<const Edge*>(dy.data) + row + i);
    };
    const Real limit = static_cast<typename RealOf<Edge>::plain>(g.limit);
    Real sum = *carry;
    for (int64_t step = 0; step < (shown ? g.T - first : 1); ++step) {
      const int64_t t = g.reverse ? first + step : g.T - 1 - step;
      if (shown && g.dy.data != nullptr) sum += at(g.dy, t);
      if (shown && g.dshown.data != nullptr) sum += at(g.dshown, t);
      if (g.limit > 0) sum = device::max(-limit, device::min(limit, sum));
    }
    *carry = sum;
  });
}

template <class Edge, class Real>
void launch_padding_gradient(const PaddingGradient& gradient, cudaStream_t stream) {
  device::launch(padding_gradient_kernel<Edge, Real>,
                 shape_of_elements(gradient.B, gradient.n, "padding_gradient"), stream, gradient);
}

template <class Edge, class Real>
__global__ void __launch_bounds__(kElementBlock) row_sum_kernel(RowSum s) {
  for_elements(1, s.n, [&](int64_t, int64_t i) {
    const Real* from = static_cast<const Real*>(s.from) + i;
    Real total = 0;
    for (int64_t row = 0; row < s.rows; ++row, from += s.ld) total += *from;
    device::store(static_cast<Edge*>(s.to) + i, total);
  });
}

template <class Edge, class Real>
void launch_row_sum(const RowSum& sum, cudaStream_t stream) {
  device::launch(row_sum_kernel<Edge, Real>, shape_of_elements(1, sum.n, "sum_rows_in_order"),
                 stream, sum);
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

void clear_rows(const Copy& copy, Dtype to, cudaStream_t stream) {
  switch (to) {
    case Dtype::float32:
      return launch_clear<float>(copy, stream);
    case Dtype::float64:
      return launch_clear<double>(copy, stream);
    case Dtype::bfloat16:
      return launch_clear<Bf16>(copy, stream);
    case Dtype::float16:
      return launch_clear<Half>(copy, stream);
    case Dtype::dual32:
      return launch_clear<Dual<float>>(copy, stream);
    case Dtype::dual64:
      return launch_clear<Dual<double>>(copy, stream);
  }
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
    case Dtype::dual32:
      return launch_initial_gradient<Dual<float>, Dual<float>>(gradient, stream);
    case Dtype::dual64:
      return launch_initial_gradient<Dual<double>, Dual<double>>(gradient, stream);
  }
}

void padding_gradient(const PaddingGradient& gradient, Dtype edge, cudaStream_t stream) {
  switch (edge) {
    case Dtype::float32:
      return launch_padding_gradient<float, float>(gradient, stream);
    case Dtype::float64:
      return launch_padding_gradient<double, double>(gradient, stream);
    case Dtype::bfloat16:
      return launch_padding_gradient<Bf16, float>(gradient, stream);
    case Dtype::float16:
      return launch_padding_gradient<Half, float>(gradient, stream);
    case Dtype::dual32:
      return launch_padding_gradient<Dual<float>, Dual<float>>(gradient, stream);
    case Dtype::dual64:
      return launch_padding_gradient<Dual<double>, Dual<double>>(gradient, stream);
  }
}

void sum_rows_in_order(const RowSum& sum, Dtype to, cudaStream_t stream) {
  switch (to) {
    case Dtype::float32:
      return launch_row_sum<float, float>(sum, stream);
    case Dtype::float64:
      return launch_row_sum<double, double>(sum, stream);
    case Dtype::bfloat16:
      return launch_row_sum<Bf16, float>(sum, stream);
    case Dtype::float16:
      return launch_row_sum<Half, float>(sum, stream);
    case Dtype::dual32:
      return launch_row_sum<Dual<float>, Dual<float>>(sum, stream);
    case Dtype::dual64:
      return launch_row_sum<Dual<double>, Dual<double>>(sum, stream);
  }
}

}  // namespace fusedrnn::cuda
