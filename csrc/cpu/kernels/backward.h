// Backpropagation through time, of one thread. Each step multiplies the gradients of the following
// step by the recurrent weights and runs the cell's backward on the result while the tile is at
// hand; only those gradients (delta) are exchanged. The gradients of the parameters come after the
// walk, as products and sums over all steps.
#pragma once

#include "cpu/kernels/backward_stage.h"
#include "cpu/kernels/dropout.h"
#include "cpu/kernels/gradient_flow.h"
#include "cpu/kernels/parameter_gradients.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class F>
FUSEDRNN_ONCE void run_backward(const BackwardJob& job, int thread) {
  using Real = typename F::Real;
  const BackwardContext<F> context(job, thread);
  const BackwardMap<Real>* const maps = maps_of<Real>(context.p.cell).backward;
  typename F::MatrixUnit::Registers registers;
  pack_backward(context);
  begin_carry(context);
  draw_operand_mask(context);
  context.wait_for_all();
  const bool has_flow = flows(job);
  for (int64_t number = context.p.T - 1; number >= 0; --number) {
    const BackwardStep step(context, number);
    draw_masks(context, number);
    for (int i = context.shape.stage_count - 1; i >= 0; --i) {
      const StageShape& stage = context.shape.stages[i];
      BackwardArrays<Real> arrays;
      find_arrays(context, step, i, arrays);
      for_products<F>(registers, context.p.B, kRecurrentPanel,
                      BackwardTiles<F>{context, step, i, maps[i], arrays},
                      context.panels(stage.units), context.share.rows, turns(number));
      if (stage.meets_backward) context.wait_for_group();
    }
    if (has_flow) {
      if (!context.shape.stages[0].meets_backward) context.wait_for_group();
      norms_of_rows(context, step);
    }
  }
  end_carry(context, registers);
  context.wait_for_all();
  parameter_gradients(context, registers);
  norms_of_steps(context);
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
