// The gradients of states that leave each step, as norms: of rows while they are in the near cache,
// and at the end of all rows of a step.
#pragma once

#include "cpu/kernels/backward_context.h"
#include "cpu/kernels/row_kernels.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

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
  for (int s = 0; s < context.shape.state_count; ++s) {
    if (context.job.flow[s] == nullptr) continue;
    double* const norms = context.job.row_norms[s] + context.sequences.number(0);
    for (int64_t step = first; step >= last; --step) {
      const auto* const row = reinterpret_cast<const double*>(context.flow_row(s, step, 0));
      norms[context.slots.time(step) * context.p.B] =
          row_kernels<typename F::Real>().length_of_sums(row);
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
        norms[context.sequences.number(row)] =
            row_kernels<typename F::Real>().length(context.flow_row(s, step, row), units);
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
      context.call.flow[s][time] = B == 1 ? *rows : row_kernels<double>().length(rows, B);
    }
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
