// The forward pass of one thread: pack, then for each chunk of steps project the inputs and walk
// the steps. A thread computes all gates of its own units for its own sequences; only what products
// multiply is exchanged.
#pragma once

#include "cpu/kernels/boundary.h"
#include "cpu/kernels/forward_stage.h"
#include "cpu/kernels/pack_cell.h"
#include "cpu/kernels/projection.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class Cell, class F>
class Forward {
 public:
  Forward(const ForwardJob& job, int thread) : context_(job, thread) {}

  void run() {
    const ForwardJob& job = context_.job;
    if (!job.frozen) pack_cell<F>(job, context_.share);
    enter_first_step(context_);
    context_.wait_for_all();
    if (job.frozen && context_.p.T == 1 && kStages == 1) {
      take_single_step();
    } else {
      int64_t chunk_step = 0;
      for (int64_t step = 0; step < context_.p.T; ++step) {
        if (chunk_step == 0) project_chunk<kProjection>(context_, registers_, step);
        walk_stages<0>(step, chunk_step);
        if (++chunk_step == job.chunk_steps) chunk_step = 0;
      }
    }
    leave_last_step(context_);
  }

 private:
  using Panel = typename F::Panel;
  static constexpr int kStages = cells::kStageCount<Cell>;
  static constexpr int kProjection = Cell::kGates * Cell::kUnitVectors;
  static constexpr CellShape kCell = shape_of<Cell>();

  // `chunk_step`: its number in the chunk of steps that has been projected.
  template <int Index>
  FUSEDRNN_MEMBER void walk_stages(int64_t step, int64_t chunk_step) {
    constexpr StageShape kStage = kCell.stages[Index];
    if constexpr (kStage.operand == cells::Operand::none) {
      walk_panels<Index>(step, chunk_step, context_.panels(kStage.units), {nullptr, 0});
    } else {
      if constexpr (F::kQuantised) quantise_operands<Index>(step);
      for_packed<ForwardStage<Cell, F, Index>::N>(
          context_, kStage.product, context_.job.packed.stages[Index].weights,
          [&](Range panels, Panels<F> weights)
              FUSEDRNN_LAMBDA { walk_panels<Index>(step, chunk_step, panels, weights); });
    }
    if (kStage.meets) context_.wait_for_group();
    if constexpr (Index + 1 < kStages) walk_stages<Index + 1>(step, chunk_step);
  }

  template <int Index>
  FUSEDRNN_ONCE void walk_panels(int64_t step, int64_t chunk_step, Range panels,
                                 Panels<F> weights) {
    using Stage = ForwardStage<Cell, F, Index>;
    for_products<F, Stage::N>(registers_, context_.p.B, Stage(context_, weights, step, chunk_step),
                              panels, context_.share.rows, turns(step));
  }

  // One step with weights that stay packed: both products of a few panels, then those of the next
  // ones; calls in turn go up and down, so that what a cache kept of the last call serves this one.
  void take_single_step() {
    if constexpr (F::kStage) stage_inputs(context_, 0, 1);
    if constexpr (F::kQuantised && kCell.h_stage == 0) quantise_operands<0>(0);
    constexpr int64_t kGroup = tile_panels(1, kProjection);
    const PackedCell& packed = context_.job.packed;
    const Range all = context_.panels('H');
    const int64_t groups = blocks_of(all.size(), kGroup);
    for (int64_t i = 0; i < groups; ++i) {
      const int64_t begin = all.begin + (context_.job.turned ? groups - 1 - i : i) * kGroup;
      const Range some{begin, begin + kGroup < all.end ? begin + kGroup : all.end};
      project_panels<kProjection>(context_, registers_, 0, 1, some,
                                  Panels<F>{static_cast<const Panel*>(packed.input.weights), 0});
      walk_panels<0>(0, 0, some, {static_cast<const Panel*>(packed.stages[0].weights), 0});
    }
  }

  // What the stage multiplies, quantised by each thread for itself.
  template <int Index>
  FUSEDRNN_MEMBER void quantise_operands(int64_t step) const {
    constexpr StageShape kStage = kCell.stages[Index];
    const int64_t depth = extent(context_.p, kStage.product.depth);
    const Range rows = context_.share.rows;
    for (int64_t b = rows.begin; b < rows.end; ++b) {
      const typename F::Real* src =
          kStage.operand == cells::Operand::h
              ? context_.h_row(context_.slots.entering(step), b)
              : context_.passed_row(Index, context_.slots.of_step(step), b);
      const int64_t row = b - rows.begin;
      context_.quantised_scales[row] =
          quantise_row<F>(src, depth, context_.quantised + row * context_.job.ld_state);
    }
  }

  const ForwardContext<F> context_;
  typename F::MatrixUnit::Registers registers_;
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
