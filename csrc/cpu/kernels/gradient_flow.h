// The gradients of states that leave each step, as norms: of a row while it is in the near cache,
// and at the end of all rows of a step.
#pragma once

#include "cpu/kernels/backward_context.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// In float64, and in one order whatever the threads.
template <class Real>
FUSEDRNN_INLINE double sum_of_squares(const Real* numbers, int64_t n, double scale) {
  constexpr int kLanes = 8;  // partial sums, so that the loop can be vectorised
  double sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double d = static_cast<double>(numbers[i + lane]) * scale;
      sums[lane] += d * d;
    }
  }
  for (int lane = 0; i < n; ++i, ++lane) {
    const double d = static_cast<double>(numbers[i]) * scale;
    sums[lane] += d * d;
  }
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

// Squares that leave the range of float64 are those of scaled numbers: gradients that explode or
// vanish are what norms are for.
template <class Real>
FUSEDRNN_INLINE double norm_of(const Real* numbers, int64_t n) {
  double scale = 1, total = sum_of_squares(numbers, n, scale);
  if (total < 0x1p-900) {
    scale = 0x1p+600;
    total = sum_of_squares(numbers, n, scale);
  } else if (total > 0x1p+1000) {
    scale = 0x1p-600;
    total = sum_of_squares(numbers, n, scale);
  }
  return __builtin_sqrt(total) / scale;
}

FUSEDRNN_INLINE bool flows(const BackwardJob& job) {
  bool any = false;
  for (int s = 0; s < job.shape->state_count; ++s) any |= job.flow[s] != nullptr;
  return any;
}

// A step's rows, once the threads that share them out have met. They meet again before the memory
// of its gradients is that of another step.
template <class F>
FUSEDRNN_ONCE void norms_of_rows(const BackwardContext<F>& context, const BackwardStep& step) {
  const Range some = context.share.of_group(context.sequences.count);
  for (int s = 0; s < context.shape.state_count; ++s) {
    if (context.job.flow[s] == nullptr) continue;
    double* const norms = context.job.row_norms[s] + step.time * context.p.B;
    const int64_t units = extent(context.p, context.shape.states[s].size);
    for (int64_t row = some.begin; row < some.end; ++row) {
      norms[context.sequences.number(row)] = norm_of(context.flow_row(s, step.number, row), units);
    }
  }
}

// The thread's share of the steps.
template <class F>
FUSEDRNN_ONCE void norms_of_steps(const BackwardContext<F>& context) {
  const Range steps = context.share.of_all(context.p.T);
  const int64_t B = context.p.B;
  for (int s = 0; s < context.shape.state_count; ++s) {
    if (context.call.flow[s] == nullptr) continue;
    for (int64_t time = steps.begin; time < steps.end; ++time) {
      context.call.flow[s][time] = norm_of(context.job.row_norms[s] + time * B, B);
    }
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
