// The gradients of states that leave each step, as norms: of a row while it is in the near cache,
// and at the end of all rows of a step.
#pragma once

#include "cpu/kernels/backward_context.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Times a power of two, in float64, and in one order whatever the threads.
template <class Real>
FUSEDRNN_INLINE double sum_of_squares(const Real* numbers, int64_t n, double scale) {
  constexpr int kLanes = 8;  // partial sums side by side
  double sums[kLanes] = {};
  int64_t i = 0;
  if constexpr (kSame<Real, typename PlainOf<Real>::type>) {
    typedef Real Numbers __attribute__((vector_size(kLanes * sizeof(Real))));
    typedef double Sums __attribute__((vector_size(kLanes * sizeof(double))));
    Sums total = {};
    for (; i + kLanes <= n; i += kLanes) {
      Numbers some;
      __builtin_memcpy(&some, numbers + i, sizeof some);
      const Sums d = __builtin_convertvector(some, Sums) * scale;
      total += d * d;
    }
    __builtin_memcpy(sums, &total, sizeof sums);
  }
  for (; i < n; ++i) {
    const double d = static_cast<double>(numbers[i]) * scale;
    sums[i % kLanes] += d * d;
  }
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

// Squares of float32 stay within the range of float64. Those of float64 that leave it are those of
// scaled numbers: gradients that explode or vanish are what norms are for.
template <class Real>
FUSEDRNN_INLINE double norm_of(const Real* numbers, int64_t n) {
  const double total = sum_of_squares(numbers, n, 1);
  if (kSame<Real, float> || (total >= 0x1p-900 && total <= 0x1p+1000)) {
    return __builtin_sqrt(total);
  }
  const double scale = total < 1 ? 0x1p+600 : 0x1p-600;
  return __builtin_sqrt(sum_of_squares(numbers, n, scale)) / scale;
}

FUSEDRNN_INLINE bool flows(const BackwardJob& job) {
  bool any = false;
  for (int s = 0; s < job.shape->state_count; ++s) any |= job.flow[s] != nullptr;
  return any;
}

// Some of a step's rows, once the threads that share them out have met. They meet again before the
// memory of its gradients is that of another step.
template <class F>
FUSEDRNN_ONCE void norms_of_rows(const BackwardContext<F>& context, const BackwardStep& step,
                                 Range some) {
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
      const double* const rows = context.job.row_norms[s] + time * B;
      context.call.flow[s][time] = B == 1 ? *rows : norm_of(rows, B);
    }
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
