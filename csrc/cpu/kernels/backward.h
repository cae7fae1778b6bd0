// Backpropagation through time, of one thread. Each step multiplies the gradients of the following
// step by the recurrent weights and runs the cell's backward on the result while the tile is at
// hand; only those gradients (delta) are exchanged. The gradients of the parameters come after the
// walk, as products and sums over all steps. Of a lean problem the walk goes in chunks of steps:
// the steps of a chunk are taken again before it, and its gradients taken in after it.
#pragma once

#include "cpu/kernels/backward_stage.h"
#include "cpu/kernels/chunk_again.h"
#include "cpu/kernels/dropout.h"
#include "cpu/kernels/gradient_flow.h"
#include "cpu/kernels/parameter_gradients.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// The steps from `first` down to the one after `end`.
template <class F>
FUSEDRNN_ONCE void walk_steps(const BackwardContext<F>& context,
                              typename F::MatrixUnit::Registers& registers, int64_t first,
                              int64_t end) {
  using Real = typename F::Real;
  const BackwardMap<Real>* const maps = maps_of<Real>(context.p.cell).backward;
  const bool has_flow = flows(context.job);
  const Range flow_rows = context.share.of_group(context.sequences.count);
  BackwardArrays<Real> arrays[kMaxStages];
  const bool maps_sum = has_flow && maps_sum_flow(context);
  for (int i = 0; i < context.shape.stage_count; ++i) {
    find_arrays(context, i, arrays[i]);
    arrays[i].sums_flow = maps_sum;
  }
  RestOfBackward<F> rest;
  StepMasks masks(context, -1, end);
  int64_t first_of_flow = first;
  for (int64_t number = first; number > end; --number) {
    context.wait_for_other(context.job.links.source, context.p.T - number);
    const BackwardStep step(context, number);
    if (step.rows.size() == 0) continue;
    masks.enter(number, arrays);
    for (int i = context.shape.stage_count - 1; i >= 0; --i) {
      const StageShape& stage = context.shape.stages[i];
      move_arrays(context, step, i, arrays[i]);
      BackwardMapper<F> mapper(context, step, i, arrays[i]);
      const BackwardTiles<F> tiles{context, step, i, maps[i], mapper, rest};
      const Range panels = context.panels(stage.units);
      // Rows that the following step brings a product to are in tiles of their own.
      const Range parts[] = {step.following, {step.following.end, step.rows.end}};
      for (const Range rows : parts) {
        for_products<F>(registers, kRecurrentPanel, tiles, panels, rows, turns(number));
        rest.finish();
      }
      if (context.shape.norm_count > 0) through_norms(context, step, i);
      if (stage.meets_backward) context.wait_for_group();
    }
    if (has_flow && (number == end + 1 || (number & (context.job.flow_steps - 1)) == 0)) {
      if (!context.shape.stages[0].meets_backward) context.wait_for_group();
      if (maps_sum) {
        norms_of_sums(context, first_of_flow, number);
      } else {
        norms_of_rows(context, first_of_flow, number, flow_rows);
      }
      first_of_flow = number - 1;
    }
  }
}

// The steps of the context's chunk, from step `first` on, with dx where another run waits for it.
template <class F>
FUSEDRNN_ONCE void walk_chunk(const BackwardContext<F>& context,
                              typename F::MatrixUnit::Registers& registers, int64_t first) {
  const Links& links = context.job.links;
  const int64_t last = first - context.chunk.steps(), most = links.steps;
  if (context.call.dx.data == nullptr || most == 0) {
    return walk_steps(context, registers, first, last);
  }
  while (first > last) {
    const int64_t end = first - last > most ? first - most : last;
    walk_steps(context, registers, first, end);
    context.wait_for_all();
    input_gradient_of_steps(context, registers, end + 1, first);
    context.report_done(context.p.T - 1 - end);
    first = end;
  }
}

// The deltas of the step that follows the next chunk.
template <class F>
FUSEDRNN_ONCE void keep_following_deltas(const BackwardContext<F>& context) {
  const int64_t B = context.p.B, ld = context.job.ld_delta;
  const Range rows = context.share.of_all(B);
  auto* const first = static_cast<typename F::Row*>(context.job.delta);
  auto* const last = first + context.job.chunk_steps * B * ld;
  const auto* const from = context.p.reverse ? last : first;
  auto* const to = context.p.reverse ? first : last;
  for (int64_t i = rows.begin * ld; i < rows.end * ld; ++i) to[i] = from[i];
}

template <class F>
FUSEDRNN_ONCE void run_backward(const BackwardJob& job, int thread) {
  BackwardContext<F> context(job, thread);
  typename F::MatrixUnit::Registers registers(job.matrix);
  pack_backward(context);
  begin_carry(context);
  draw_operand_mask(context);
  context.wait_for_all();
  for (int64_t number = context.p.T - 1; number >= 0; number -= context.chunk.steps()) {
    context.enter_chunk(number);
    if (context.p.lean) {
      take_chunk_again(context, registers);
      context.wait_for_all();
    }
    walk_chunk(context, registers, number);
    if (context.chunk.last) end_carry(context, registers);
    context.wait_for_all();
    add_parameter_gradients(context, registers);
    if (context.chunk.last) break;
    keep_following_deltas(context);
    context.wait_for_all();
  }
  reset_gradients(context, registers);
  norms_of_steps(context);
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
