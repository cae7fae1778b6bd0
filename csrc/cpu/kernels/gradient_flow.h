// The gradients of states that leave each step, as norms.
#pragma once

#include "cpu/kernels/backward_context.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// The sum of the squares of rows times `scale`, in float64 and in one order whatever the threads.
template <class F>
FUSEDRNN_INLINE double sum_of_squares(const BackwardContext<F>& context, int state, int64_t time,
                                      double scale) {
  constexpr int kLanes = 8;  // partial sums, so that the loop can be vectorised
  const int64_t units = extent(context.p, context.shape.states[state].size);
  double sums[kLanes] = {};
  for (int64_t b = 0; b < context.p.B; ++b) {
    const typename F::Real* row = context.flow_row(state, time, b);
    int64_t i = 0;
    for (; i + kLanes <= units; i += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const double d = static_cast<double>(row[i + lane]) * scale;
        sums[lane] += d * d;
      }
    }
    for (; i < units; ++i) {
      const double d = static_cast<double>(row[i]) * scale;
      sums[i % kLanes] += d * d;
    }
  }
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

// The thread's share of the steps. Squares that leave the range of float64 are of scaled numbers:
// gradients that explode or vanish are what the norms are for.
template <class F>
FUSEDRNN_ONCE void gradient_flow(const BackwardContext<F>& context) {
  const Range steps = context.share.of_all(context.p.T);
  for (int s = 0; s < context.shape.state_count; ++s) {
    double* const flow = context.call.flow[s];
    if (flow == nullptr) continue;
    for (int64_t time = steps.begin; time < steps.end; ++time) {
      double scale = 1;
      double total = sum_of_squares(context, s, time, scale);
      if (total < 0x1p-900) {
        scale = 0x1p+500;
        total = sum_of_squares(context, s, time, scale);
      } else if (total > 0x1p+1000) {
        scale = 0x1p-500;
        total = sum_of_squares(context, s, time, scale);
      }
      flow[time] = __builtin_sqrt(total) / scale;
    }
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
