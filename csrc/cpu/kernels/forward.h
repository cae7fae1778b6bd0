// The forward pass of one thread: pack, then for each chunk of steps project the inputs and walk
// the steps. A thread computes all gates of its own units for its own sequences; only what products
// multiply is exchanged.
#pragma once

#include "cpu/kernels/boundary.h"
#include "cpu/kernels/dropout.h"
#include "cpu/kernels/forward_stage.h"
#include "cpu/kernels/pack_cell.h"
#include "cpu/kernels/projection.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class F>
class Forward {
 public:
  using Registers = typename F::MatrixUnit::Registers;

  FUSEDRNN_MEMBER Forward(const ForwardJob& job, int thread, Registers& registers)
      : context_(job, thread),
        maps_(maps_of<typename F::Real>(context_.p.cell).forward),
        registers_(registers) {}

  FUSEDRNN_MEMBER void run() {
    const ForwardJob& job = context_.job;
    if (!job.frozen) pack_cell<F>(job, context_.share);
    enter_first_step(context_);
    draw_operand_mask(context_);
    if (job.masks_operand) {
      mask_operand(context_, context_.shape.h_stage, context_.slots.entering(0));
    }
    context_.wait_for_all();
    if (job.frozen && context_.p.T == 1 && context_.shape.stage_count == 1) {
      take_single_step();
    } else {
      int64_t chunk_step = 0;
      for (int64_t step = 0; step < context_.p.T; ++step) {
        if (chunk_step == 0) project_chunk(context_, registers_, step);
        draw_masks(context_, step);
        take_step(ForwardStep(context_, step, chunk_step));
        if (++chunk_step == job.chunk_steps) chunk_step = 0;
      }
    }
    leave_last_step(context_);
  }

  // The gates of a job's rows, whose states are known.
  FUSEDRNN_MEMBER void run_again() {
    project_chunk(context_, registers_, 0);
    take_step(ForwardStep(context_, 0, 0));
  }

 private:
  using Panel = typename F::Panel;
  using Real = typename F::Real;

  FUSEDRNN_MEMBER void take_step(const ForwardStep& step) {
    const CellShape& shape = context_.shape;
    for (int i = 0; i < shape.stage_count; ++i) {
      const StageShape& stage = shape.stages[i];
      if (step.is_again && stage.units != 'H' && !stage.passes) continue;  // it leaves a state
      ForwardArrays<Real> arrays;
      find_arrays(context_, step, i, arrays);
      if (stage.operand == cells::Operand::none) {
        walk_panels(i, step, arrays, context_.panels(stage.units), {nullptr, 0});
      } else {
        if constexpr (F::kQuantised) quantise_operands(i, step);
        for_packed(context_, stage.product, stage_vectors(shape, stage),
                   context_.job.packed.stages[i].weights,
                   [&](Range panels, Panels<F> weights)
                       FUSEDRNN_LAMBDA { walk_panels(i, step, arrays, panels, weights); });
      }
      if (context_.job.masks_operand) mask_what_follows(i, step);
      if (stage.meets) context_.wait_for_group();
    }
  }

  // Of what stage `index` has made, the operands of w_hh.
  FUSEDRNN_ONCE void mask_what_follows(int index, const ForwardStep& step) const {
    const CellShape& shape = context_.shape;
    if (shape.stages[index].passes && context_.multiplies_recurrent(index + 1)) {
      mask_operand(context_, index + 1, step.of_step);
    }
    if (shape.states[0].last_stage == index) mask_operand(context_, shape.h_stage, step.leaving);
  }

  FUSEDRNN_ONCE void walk_panels(int stage, const ForwardStep& step, ForwardArrays<Real>& arrays,
                                 Range panels, Panels<F> weights) {
    for_products<F>(registers_, context_.sequences,
                    stage_vectors(context_.shape, context_.shape.stages[stage]),
                    ForwardTiles<F>{context_, step, stage, weights, maps_[stage], arrays}, panels,
                    context_.share.rows, step.turned);
  }

  // One step with weights that stay packed: both products of a few panels, then those of the next
  // ones; calls in turn go up and down, so that what a cache kept of the last call serves this one.
  FUSEDRNN_MEMBER void take_single_step() {
    const ForwardStep step(context_, 0, 0);
    ForwardArrays<Real> arrays;
    find_arrays(context_, step, 0, arrays);
    if constexpr (F::kStage) stage_inputs(context_, 0, 1);
    if constexpr (F::kQuantised) {
      if (context_.shape.h_stage == 0) quantise_operands(0, step);
    }
    const int64_t group = tile_panels<F>(1, context_.projection_vectors());
    const PackedCell& packed = context_.job.packed;
    const Range all = context_.panels('H');
    const int64_t groups = blocks_of(all.size(), group);
    for (int64_t i = 0; i < groups; ++i) {
      const int64_t begin = all.begin + (context_.job.turned ? groups - 1 - i : i) * group;
      const Range some{begin, begin + group < all.end ? begin + group : all.end};
      project_panels(context_, registers_, 0, 1, some,
                     Panels<F>{static_cast<const Panel*>(packed.input.weights), 0});
      walk_panels(0, step, arrays, some, {static_cast<const Panel*>(packed.stages[0].weights), 0});
    }
  }

  // What the stage multiplies, quantised by each thread for itself.
  FUSEDRNN_MEMBER void quantise_operands(int index, const ForwardStep& step) const {
    const StageShape& stage = context_.shape.stages[index];
    const int64_t depth = extent(context_.p, stage.product.depth);
    const Range rows = context_.share.rows;
    for (int64_t b = rows.begin; b < rows.end; ++b) {
      const Real* src = stage.operand == cells::Operand::h
                            ? context_.h_row(step.entering, b)
                            : context_.passed_row(index, step.of_step, b);
      const int64_t row = b - rows.begin;
      context_.quantised_scales[row] =
          quantise_row<F>(src, depth, context_.quantised + row * context_.job.ld_state);
    }
  }

  const ForwardContext<F> context_;
  const ForwardMap<Real>* const maps_;  // of the cell's stages
  Registers& registers_;
};

template <class F>
FUSEDRNN_ONCE void run_forward(const ForwardJob& job, int thread) {
  typename F::MatrixUnit::Registers registers;
  Forward<F>(job, thread, registers).run();
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
