#include <algorithm>
#include <cmath>

#include "nn/losses.h"
#include "nn/share.h"

namespace fusedrnn::nn {
namespace {

template <class Real>
void run_row(const CrossEntropy<Real>& call, int64_t row) {
  const cpu::NnKernels<Real>& use = kernels<Real>();
  const int64_t V = call.V;
  const Real* const x = call.logits + row * V;
  Real* const gradient = call.gradient == nullptr ? nullptr : call.gradient + row * V;
  if (call.counts != nullptr && call.counts[row] == 0) {
    call.losses[row] = 0;
    if (gradient != nullptr) std::fill_n(gradient, V, Real(0));
    return;
  }
  const int64_t target = call.targets[row];
  const Real most = use.maximum(x, V);
  // Before the gradient takes their place.
  const double picked = static_cast<double>(x[target]) - static_cast<double>(most);
  const double mean = call.smoothing == 0 ? 0 : use.sum(x, most, V) / static_cast<double>(V);
  const double sum = use.exponentials(x, most, V, gradient);
  double loss = std::log(sum) - (1 - call.smoothing) * picked;
  if (call.smoothing != 0) loss -= call.smoothing * mean;
  call.losses[row] = loss;
  if (gradient != nullptr) {
    const double even = call.scale * call.smoothing / static_cast<double>(V);
    use.scale(gradient, static_cast<Real>(call.scale / sum), static_cast<Real>(even), V);
    gradient[target] -= static_cast<Real>(call.scale * (1 - call.smoothing));
  }
}

template <class Real>
void run_all(const CrossEntropy<Real>& call) {
  const double work = static_cast<double>(call.N) * static_cast<double>(call.V);
  cpu::Team team(useful_threads(call.N, work));
  share_out(team, call.N, [&](int64_t row, int) { run_row(call, row); });
}

}  // namespace

void run(const CrossEntropy<float>& call) { run_all(call); }
void run(const CrossEntropy<double>& call) { run_all(call); }

}  // namespace fusedrnn::nn
