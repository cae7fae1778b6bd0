// The gradients of states that leave each step, as norms: of rows while they are in the near cache,
// and at the end of all rows of a step.
#pragma once

#include "cpu/kernels/backward_context.h"
#include "cpu/kernels/normalise.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

FUSEDRNN_INLINE double total_of(Vec<double>* sums) {
  FUSEDRNN_UNROLL
  for (int half = kSquareSums / Vec<double>::width / 2; half > 0; half /= 2) {
    FUSEDRNN_UNROLL
    for (int k = 0; k < half; ++k) sums[k] = sums[k] + sums[k + half];
  }
  return first_lane(sum_of_lanes(sums[0]));
}

// Times a power of two, in float64, and in one order whatever the threads.
template <class Real>
FUSEDRNN_INLINE double sum_of_squares(const Real* numbers, int64_t n, double scale) {
  using Wide = Vec<double>;
  constexpr int kParts = kSquareSums / Wide::width;
  Wide sums[kParts];
  FUSEDRNN_UNROLL
  for (Wide& sum : sums) sum = Wide::zero();
  int64_t i = 0;
  if constexpr (kSame<Real, typename PlainOf<Real>::type>) {
#pragma GCC unroll 4
    for (; i + kSquareSums <= n; i += kSquareSums) {
      FUSEDRNN_UNROLL
      for (int k = 0; k < kParts; ++k) {
        const Wide d = Wide::load(numbers + i + k * Wide::width) * Wide::set(scale);
        sums[k] = fma(d, d, sums[k]);
      }
    }
  }
  double total = total_of(sums);
  for (; i < n; ++i) {
    const double d = static_cast<double>(numbers[i]) * scale;
    total += d * d;
  }
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

// Whether maps sum the squares up, while they have them at hand: of one row whose units are one
// tile, so that they come in the order in which others are summed.
template <class F>
FUSEDRNN_INLINE bool maps_sum_flow(const BackwardContext<F>& context) {
  if constexpr (F::kConverts || !kAddsSquares<typename F::V>) {
    return false;
  } else {
    bool all = context.sequences.count == 1 && context.share.parts == 1;
    for (int s = 0; s < context.shape.state_count; ++s) {
      constexpr int64_t kWide = tile_panels<F>(1, kRecurrentPanel);
      const char size = context.shape.states[s].size;
      const int64_t panels = context.panels(size).size();
      const bool in_one_tile = panels == 1 || panels == kWide || (kWide > 1 && panels == 2);
      all = all && in_one_tile && extent(context.p, size) % kSquareSums == 0;
    }
    return all;
  }
}

// From the partial sums that maps have left of steps `last` to `first` to the norms of the row.
template <class F>
FUSEDRNN_ONCE void norms_of_sums(const BackwardContext<F>& context, int64_t first, int64_t last) {
  using Wide = Vec<double>;
  constexpr int kParts = kSquareSums / Wide::width;
  for (int s = 0; s < context.shape.state_count; ++s) {
    if (context.job.flow[s] == nullptr) continue;
    double* const norms = context.job.row_norms[s] + context.sequences.number(0);
    for (int64_t step = first; step >= last; --step) {
      const auto* const row = reinterpret_cast<const double*>(context.flow_row(s, step, 0));
      Wide sums[kParts];
      FUSEDRNN_UNROLL
      for (int k = 0; k < kParts; ++k) sums[k] = Wide::load(row + k * Wide::width);
      norms[context.slots.time(step) * context.p.B] = __builtin_sqrt(total_of(sums));
    }
  }
}

// Some of the rows of steps `last` to `first`, once the threads that share them out have met. They
// meet again before the memory of these gradients is that of other steps. Of several steps at once,
// as nothing waits then for the sum and the root of one row.
template <class F>
FUSEDRNN_ONCE void norms_of_rows(const BackwardContext<F>& context, int64_t first, int64_t last,
                                 Range some) {
  for (int s = 0; s < context.shape.state_count; ++s) {
    if (context.job.flow[s] == nullptr) continue;
    const int64_t units = extent(context.p, context.shape.states[s].size);
    for (int64_t step = first; step >= last; --step) {
      double* const norms = context.job.row_norms[s] + context.slots.time(step) * context.p.B;
      for (int64_t row = some.begin; row < some.end; ++row) {
        norms[context.sequences.number(row)] = norm_of(context.flow_row(s, step, row), units);
      }
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
