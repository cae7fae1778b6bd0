// The forward pass of one thread: pack, then for each chunk of steps project the inputs and walk
// the steps. A thread computes all gates of its own units for its own sequences; only what products
// multiply is exchanged.
#pragma once

#include "cpu/kernels/boundary.h"
#include "cpu/kernels/dropout.h"
#include "cpu/kernels/forward_stage.h"
#include "cpu/kernels/normalise.h"
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
    if (!context_.job.frozen) pack_cell<F>(context_.job, context_.share);
    enter_first_step(context_);
    take_steps();
    context_.report_done(context_.p.T);
    leave_last_step(context_);
  }

  // From a checkpoint on, with weights that are packed.
  FUSEDRNN_MEMBER void run_again(int64_t checkpoint) {
    enter_checkpoint(context_, checkpoint);
    take_steps();
  }

 private:
  using Panel = typename F::Panel;
  using Real = typename F::Real;

  FUSEDRNN_MEMBER void take_steps() {
    const ForwardJob& job = context_.job;
    for (int i = 0; i < context_.shape.stage_count; ++i) find_arrays(context_, i, arrays_[i]);
    draw_operand_mask(context_);
    if (job.masks_operand) {
      for (int64_t row = 0; row < context_.sequences.count; ++row) {
        mask_operand(context_, context_.shape.h_stage, {row, row + 1},
                     context_.standing_slot(row, 0));
      }
    }
    context_.wait_for_all();
    const bool single = context_.shape.stage_count == 1 && context_.shape.norm_count == 0;
    if (job.frozen && context_.p.T == 1 && single) {
      take_single_step();
    } else {
      InputChunk chunk;
      int64_t chunk_row = 0;
      for (int64_t number = 0; number < context_.p.T; ++number) {
        if (number == chunk.end_step) {
          context_.report_done(number);
          chunk = project_chunk(context_, registers_, number);
          chunk_row = 0;
        }
        const ForwardStep step(context_, number, chunk_row);
        chunk_row += step.rows.size();
        leave_checkpoint(context_, number);
        if (step.rows.size() < context_.sequences.count) show_standing(context_, step, number);
        if (step.rows.size() == 0) continue;
        draw_masks(context_, number, step.rows);
        take_step(step);
      }
    }
  }

  FUSEDRNN_MEMBER void take_step(const ForwardStep& step) {
    const CellShape& shape = context_.shape;
    for (int i = 0; i < shape.stage_count; ++i) {
      const StageShape& stage = shape.stages[i];
      ForwardArrays<Real>& arrays = arrays_[i];
      move_arrays(context_, step, i, arrays);
      if (shape.norm_count > 0) {
        take_normed_stage(i, step, arrays);
      } else if (stage.operand == cells::Operand::none) {
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

  // A stage whose map sees statistics of whole rows: first its sums, of all units of the thread's
  // rows, then the norms, then the map.
  FUSEDRNN_ONCE void take_normed_stage(int index, const ForwardStep& step,
                                       ForwardArrays<Real>& arrays) {
    const StageShape& stage = context_.shape.stages[index];
    const int vectors = stage_vectors(context_.shape, stage);
    const int64_t numbers = vectors * F::V::width;
    const Range panels = context_.panels(stage.units), rows = step.rows;
    Real* const sums = context_.template part_of<Real>(context_.job.sums);
    ForwardMapper<F> mapper(context_, step, index, arrays);
    ForwardTiles<F> tiles{context_, step, index, {nullptr, 0}, maps_[index], mapper};
    if (stage.reads_row) {
      for (int64_t panel = 0; panel < panels.end; ++panel) {
        Real* dst = sums + panel * rows.size() * numbers;
        for (int64_t row = rows.begin; row < rows.end; ++row, dst += numbers) {
          const Real* const src =
              static_cast<const Real*>(context_.job.passed) + context_.state_offset(0, row);
          for (int64_t i = 0; i < numbers; i += F::V::width) {
            F::V::load(src + panel * numbers + i).store(dst + i);
          }
        }
      }
    } else {
      if constexpr (F::kQuantised) quantise_operands(index, step);
      for_packed(context_, stage.product, vectors, context_.job.packed.stages[index].weights,
                 [&](Range some, Panels<F> weights) FUSEDRNN_LAMBDA {
                   tiles.weights = weights;
                   for_products<F>(registers_, context_.p.B, vectors,
                                   SumTiles<F>{tiles, sums, numbers}, some, rows, step.turned);
                 });
    }
    const Rows<RowNorm<Real>> norms = context_.norms_at(step.of_step);
    find_norms(context_, index, vectors, sums, step.rows, arrays, norms);
    arrays.norms = {norms.data, norms.stride};
    // Of a tile that a narrow format has room for: some rows of a panel, or all of a few panels.
    constexpr int64_t kRows = kMaxTileRows;
    const int64_t together = rows.size() > 0 && rows.size() < kRows ? kRows / rows.size() : 1;
    for (int64_t panel = 0; panel < panels.end; panel += together) {
      const int64_t width = panels.end - panel < together ? panels.end - panel : together;
      for (int64_t row = rows.begin; row < rows.end; row += kRows) {
        const int64_t left = rows.end - row;
        mapper.run(Tile{panel, width, row, left < kRows ? left : kRows, 0, panel}, maps_[index],
                   sums + (panel * rows.size() + row) * numbers);
      }
    }
  }

  // Of what stage `index` has made, the operands of w_hh.
  FUSEDRNN_ONCE void mask_what_follows(int index, const ForwardStep& step) const {
    const CellShape& shape = context_.shape;
    if (shape.stages[index].passes && context_.multiplies_recurrent(index + 1)) {
      mask_operand(context_, index + 1, step.rows, step.of_step);
    }
    if (shape.states[0].last_stage == index) {
      mask_operand(context_, shape.h_stage, step.rows, step.leaving);
    }
  }

  FUSEDRNN_ONCE void walk_panels(int stage, const ForwardStep& step, ForwardArrays<Real>& arrays,
                                 Range panels, Panels<F> weights) {
    ForwardMapper<F> mapper(context_, step, stage, arrays);
    for_products<F>(registers_, context_.p.B,
                    stage_vectors(context_.shape, context_.shape.stages[stage]),
                    ForwardTiles<F>{context_, step, stage, weights, maps_[stage], mapper}, panels,
                    step.rows, step.turned);
  }

  // One step with weights that stay packed: both products of a few panels, then those of the next
  // ones; calls in turn go up and down, so that what a cache kept of the last call serves this one.
  FUSEDRNN_MEMBER void take_single_step() {
    const ForwardStep step(context_, 0, 0);
    ForwardArrays<Real>& arrays = arrays_[0];
    move_arrays(context_, step, 0, arrays);
    const InputChunk chunk = find_inputs(context_, 0);
    if (step.rows.size() < context_.sequences.count) show_standing(context_, step, 0);
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
      project_panels(context_, registers_, chunk.rows, some,
                     Panels<F>{static_cast<const Panel*>(packed.input.weights), 0});
      walk_panels(0, step, arrays, some, {static_cast<const Panel*>(packed.stages[0].weights), 0});
    }
  }

  // What the stage multiplies, quantised by each thread for itself.
  FUSEDRNN_MEMBER void quantise_operands(int index, const ForwardStep& step) const {
    const StageShape& stage = context_.shape.stages[index];
    const int64_t depth = extent(context_.p, stage.product.depth);
    for (int64_t row = step.rows.begin; row < step.rows.end; ++row) {
      const Real* src = stage.operand == cells::Operand::h
                            ? context_.h_row(step.entering, row)
                            : context_.passed_row(index, step.of_step, row);
      context_.quantised_scales[row] =
          quantise_row<F>(src, depth, context_.quantised + row * context_.job.ld_state);
    }
  }

  const ForwardContext<F> context_;
  const ForwardMap<Real>* const maps_;  // of the cell's stages
  Registers& registers_;
  ForwardArrays<Real> arrays_[kMaxStages];
};

template <class F>
FUSEDRNN_ONCE void run_forward(const ForwardJob& job, int thread) {
  typename F::MatrixUnit::Registers registers;
  Forward<F>(job, thread, registers).run();
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
