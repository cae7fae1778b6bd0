#include "cuda/kernels/norms.h"

#include "cuda/device/launch.h"
#include "cuda/device/shuffle.h"
#include "cuda/kernels/elements.h"
#include "cuda/kernels/flags.h"
#include "cuda/kernels/format.h"

namespace fusedrnn::cuda {
namespace {

using device::kWarp;

template <class Real>
FUSEDRNN_DEVICE Real from_lane(Real x, int mask) {
  return device::shuffle_xor(x, mask);
}
template <class R>
FUSEDRNN_DEVICE Dual<R> from_lane(Dual<R> x, int mask) {
  return {device::shuffle_xor(x.value, mask), device::shuffle_xor(x.tangent, mask)};
}

// The mean of what of(i) returns, i < n, in each lane of the warp.
template <class Real, class Of>
FUSEDRNN_DEVICE Real mean_of(int64_t n, const Of& of) {
  Real sum(0);
  for (int64_t i = device::lane(); i < n; i += kWarp) sum = sum + of(i);
#pragma unroll
  for (int mask = kWarp / 2; mask > 0; mask /= 2) sum = sum + from_lane(sum, mask);
  return sum / Real(static_cast<typename RealOf<Real>::plain>(n));
}

// Calls body(row) in all lanes of a warp.
template <class Body>
FUSEDRNN_DEVICE void for_rows(int64_t rows, const Body& body) {
  const int64_t warps = device::threads() / kWarp;
  const int64_t first = device::block_x() * warps + device::warp();
  for (int64_t row = first; row < rows; row += device::blocks_x() * warps) body(row);
}

device::LaunchShape shape_of_rows(int64_t rows, const char* name) {
  return shape_of_elements(1, rows * kWarp, name);
}

template <class Real>
__global__ void __launch_bounds__(kElementBlock) statistics(NormStatistics s) {
  for_rows(s.rows.B, [&](int64_t row) {
    const Real* const first = static_cast<const Real*>(s.first) + row * s.ld_first;
    const Real* const second =
        s.second == nullptr ? nullptr : static_cast<const Real*>(s.second) + row * s.ld_second;
    const auto number = [&](int64_t i) {
      return second == nullptr ? first[i] : first[i] + second[i];
    };
    const Real mean = mean_of<Real>(s.n, number);
    const Real variance = mean_of<Real>(s.n, [&](int64_t i) {
      const Real centred = number(i) - mean;
      return centred * centred;
    });
    if (device::lane() != 0) return;
    const Real epsilon(static_cast<typename RealOf<Real>::plain>(s.epsilon));
    Real* const to =
        static_cast<Real*>(s.rows.statistics) + row * s.rows.ld_statistics + s.index * 2;
    to[0] = mean;
    to[1] = device::inverse_sqrt(variance + epsilon);
  });
}

// Where a row does not exist its gradients are zeros, whatever lies there.
template <class Real, class To>
__global__ void __launch_bounds__(kElementBlock) through(ThroughNorm s) {
  for_rows(s.rows.B, [&](int64_t row) {
    const bool valid = s.rows.flags == nullptr || (s.rows.flags[row] & kValid) != 0;
    const Real* const d = static_cast<const Real*>(s.normed) + row * s.ld_normed;
    const Real* const x = static_cast<const Real*>(s.x) + row * s.ld_x;
    Real mean(0), along(0), scale(0);
    if (valid) {
      mean = mean_of<Real>(s.n, [&](int64_t i) { return d[i]; });
      along = mean_of<Real>(s.n, [&](int64_t i) { return d[i] * x[i]; });
      scale =
          static_cast<const Real*>(s.rows.statistics)[row * s.rows.ld_statistics + s.index * 2 + 1];
    }
    const Real* const beside = static_cast<const Real*>(s.beside);
    for (int64_t i = device::lane(); i < s.n; i += kWarp) {
      Real dx(0);
      if (valid) dx = scale * (d[i] - mean - x[i] * along);
      if (valid && beside != nullptr) dx = dx + beside[row * s.ld_normed + i];
      device::store(static_cast<To*>(s.to) + row * s.ld_to + i, dx);
    }
  });
}

template <class Real>
void launch_statistics(const NormStatistics& norm, cudaStream_t stream) {
  device::launch(statistics<Real>, shape_of_rows(norm.rows.B, "norm_statistics"), stream, norm);
}

template <class Real, class To>
void launch_through(const ThroughNorm& norm, cudaStream_t stream) {
  device::launch(through<Real, To>, shape_of_rows(norm.rows.B, "through_norm"), stream, norm);
}

}  // namespace

void norm_statistics(const NormStatistics& norm, Dtype real, cudaStream_t stream) {
  switch (real) {
    case Dtype::float64:
      return launch_statistics<double>(norm, stream);
    case Dtype::dual32:
      return launch_statistics<Dual<float>>(norm, stream);
    case Dtype::dual64:
      return launch_statistics<Dual<double>>(norm, stream);
    default:
      return launch_statistics<float>(norm, stream);
  }
}

void through_norm(const ThroughNorm& norm, Dtype to, Dtype real, cudaStream_t stream) {
  switch (real) {
    case Dtype::float64:
      return launch_through<double, double>(norm, stream);
    case Dtype::dual32:
      return launch_through<Dual<float>, Dual<float>>(norm, stream);
    case Dtype::dual64:
      return launch_through<Dual<double>, Dual<double>>(norm, stream);
    default:
      return to == Dtype::bfloat16 ? launch_through<float, Bf16>(norm, stream)
                                   : launch_through<float, float>(norm, stream);
  }
}

}  // namespace fusedrnn::cuda
