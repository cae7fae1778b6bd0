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

// Of a step of one stage: what projects the inputs of a tile, too.
template <class F>
struct ProjectingTiles {
  Projection<F> projection;
  ForwardTiles<F> stage;
  ForwardArrays<typename F::Real>& arrays;

  void run(const Tile& tile) const {
    if (stage.context.has_two_places && tile.by_matrix_unit()) {
      run_in_place(tile);
    } else {
      stage.rest.finish();  // it may read what is projected here
      projection.run(tile);
      stage.run(tile);
    }
  }

  // The projections of one tile and of the one before.
  FUSEDRNN_MEMBER void run_in_place(const Tile& tile) const {
    stage.rest.next();
    const int64_t numbers = projection.numbers();
    auto* const place = stage.context.projection + stage.rest.turn() * tile.height() * numbers;
    projection.project(tile, place, stage.rest.meanwhile());
    stage.run_block(tile, [&] FUSEDRNN_LAMBDA {
      arrays.projection = placed(place, numbers, tile.first_row(), 0).data;
      arrays.projection_panel = 0;
    });
  }
};

template <class F>
class Forward {
 public:
  using Registers = typename F::MatrixUnit::Registers;

  FUSEDRNN_ONCE Forward(const ForwardJob& job, int thread, Registers& registers)
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

  FUSEDRNN_ONCE void take_steps() {
    const ForwardJob& job = context_.job;
    for (int i = 0; i < context_.shape.stage_count; ++i) {
      find_arrays(context_, i, arrays_[i]);
      products_[i].find(context_, i);
    }
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
      StepMasks masks(context_, 1, context_.p.T);
      InputChunk chunk;
      bool in_tiles = false;  // whether they are projected with the step
      int64_t chunk_row = 0;
      for (int64_t number = 0; number < context_.p.T; ++number) {
        if (number == chunk.end_step) {
          context_.report_done(number);
          in_tiles = context_.projects_tiles && registers_multiply() &&
                     context_.living(number).size() >= F::MatrixUnit::kRows;
          if (in_tiles) {
            chunk = find_inputs(context_, number, number + 1);
          } else {
            chunk = project_chunk(context_, registers_, number);
            find_projection(context_, arrays_[0]);
          }
          if (context_.slots.save) normalise_inputs(context_, {number, chunk.end_step}, 0);
          chunk_row = 0;
        }
        const ForwardStep step(context_, number, chunk_row);
        // Where nothing is kept, one place serves all steps.
        if (!context_.slots.save) normalise_inputs(context_, {number, number + 1}, chunk_row);
        chunk_row += step.rows.size();
        leave_checkpoint(context_, number);
        if (step.rows.size() < context_.sequences.count) show_standing(context_, step, number);
        if (step.rows.size() == 0) continue;
        masks.enter(number, arrays_);
        if (in_tiles) {
          take_projecting(step, step.turned);
          if (context_.job.masks_operand) mask_what_follows(0, step);
          if (context_.shape.stages[0].meets) context_.wait_for_group();
        } else {
          take_step(step);
        }
      }
    }
  }

  FUSEDRNN_MEMBER bool registers_multiply() const {
    if constexpr (F::MatrixUnit::kPresent) {
      return registers_.multiplies();
    } else {
      return false;
    }
  }

  FUSEDRNN_MEMBER void take_step(const ForwardStep& step) {
    const CellShape& shape = context_.shape;
    for (int i = 0; i < shape.stage_count; ++i) {
      const StageShape& stage = shape.stages[i];
      ForwardArrays<Real>& arrays = arrays_[i];
      move_arrays(context_, step, i, arrays);
      products_[i].move(context_, step, i);
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
    StageProduct<F>& product = products_[index];
    const ForwardTiles<F> tiles{context_, step, index, product, maps_[index], mapper, rest_};
    if (!stage.reads_row) {
      if constexpr (F::kQuantised) quantise_operands(index, step);
      for_packed(context_, stage.product, vectors, context_.job.packed.stages[index].weights,
                 [&](Range some, Panels<F> weights) FUSEDRNN_LAMBDA {
                   product.set_weights(weights);
                   for_products<F>(registers_, vectors,
                                   SumTiles<F>{tiles, sums + some.begin * rows.size() * numbers,
                                               numbers, some, some.begin},
                                   some, rows, step.turned);
                 });
    }
    const Rows<RowNorm<Real>> norms = context_.norms_at(step.of_step);
    find_norms(context_, index, sums, step.rows, arrays, norms);
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
    StageProduct<F>& product = products_[stage];
    product.set_weights(weights);
    const ForwardTiles<F> tiles{context_, step, stage, product, maps_[stage], mapper, rest_};
    const int vectors = product.vectors();
    const int64_t together = panels_together(step.rows.size());
    const bool unpacked = kUnpacked<F> && context_.job.single_row && panels.size() > 0;
    if (unpacked || (together > 0 && gathers(step.rows.size(), vectors, panels, together))) {
      walk_groups(tiles, vectors, panels, together);
    } else {
      for_products<F>(registers_, vectors, tiles, panels, step.rows, step.turned);
      rest_.finish();
    }
  }

  // The panels that a map takes at once; none where the rows alone are too many. Small steps notice
  // a division.
  FUSEDRNN_MEMBER int64_t panels_together(int64_t rows) {
    if (rows != rows_together_) {
      rows_together_ = rows;
      panels_together_ = kTileNumbers<F> / (rows * context_.panel_units);
    }
    return panels_together_;
  }

  // Whether these are more than a tile has by itself. Of a tile of several panels a map that
  // converts nothing is done before the weights of the next one have come.
  FUSEDRNN_MEMBER static bool gathers(int64_t rows, int vectors, Range panels, int64_t together) {
    static constexpr TileRows<F> kHighest;
    if (rows > kHighest.of[vectors]) return true;
    const int64_t wide = tile_panels<F>(static_cast<int>(rows), vectors);
    return (F::kConverts || wide == 1) && together > wide && panels.size() > wide;
  }

  // Products of as many panels as a map takes at once, where rows are few: what a map costs before
  // its first row is as much as one or two of them.
  FUSEDRNN_MEMBER void walk_groups(const ForwardTiles<F>& tiles, int vectors, Range panels,
                                   int64_t together) {
    alignas(64) Real sums[kTileNumbers<F> * kMostVectors];
    const Range rows = tiles.step.rows;
    const bool turned = tiles.step.turned;
    const int64_t groups = panels.size() <= together ? 1 : blocks_of(panels.size(), together);
    const auto group = [&](int64_t i) FUSEDRNN_LAMBDA {
      const int64_t begin = panels.begin + (turned ? groups - 1 - i : i) * together;
      return Range{begin, panels.end - begin < together ? panels.end : begin + together};
    };
    for (int64_t i = 0; i < groups; ++i) {
      const Range some = group(i), next = group(i + 1 < groups ? i + 1 : i);
      const Tile all{some.begin, some.size(), rows.begin, rows.size(), 0, some.begin};
      if (!tiles.product.multiplies() || !tiles.any_valid(all)) {
        // The map has no use for sums.
      } else if (kUnpacked<F> && context_.job.single_row) {
        multiply_single_row(tiles, some, sums);
      } else {
        for_products<F>(registers_, vectors,
                        SumTiles<F>{tiles, sums, vectors * F::V::width, some,
                                    turned ? next.end - 1 : next.begin},
                        some, rows, turned);
      }
      tiles.mapper.run(all, tiles.map, sums);
    }
  }

  // The sums of the only row there is, of some panels.
  FUSEDRNN_MEMBER void multiply_single_row(const ForwardTiles<F>& tiles, Range panels,
                                           Real* sums) const {
    if constexpr (kUnpacked<F>) {
      const ProductShape& product = context_.shape.stages[tiles.index].product;
      const bool of_h = context_.shape.stages[tiles.index].operand == cells::Operand::h;
      const int64_t slot = of_h ? tiles.step.entering : tiles.step.of_step;
      const auto* const row = context_.operand_row(tiles.index, slot, 0);
      const HeadPanels heads(context_.p, product, context_.panel_units);
      const int64_t numbers =
          stage_vectors(context_.shape, context_.shape.stages[tiles.index]) * int64_t{F::V::width};
      for (int64_t panel = panels.begin; panel < panels.end; ++panel, sums += numbers) {
        const int64_t column = heads.panels == 0 ? 0 : heads.first_column(panel);
        multiply_unpacked(context_, product, context_.job.packed.stages[tiles.index], panel,
                          row + column, sums);
      }
    }
  }

  // One step with weights that stay packed. Calls in turn go up and down, so that what a cache kept
  // of the last call serves this one.
  FUSEDRNN_MEMBER void take_single_step() {
    const ForwardStep step(context_, 0, 0);
    find_inputs(context_, 0, 1);
    if (step.rows.size() < context_.sequences.count) show_standing(context_, step, 0);
    take_projecting(step, context_.job.turned);
  }

  // A step of one stage whose inputs are found: both products of a tile, then those of the next.
  FUSEDRNN_MEMBER void take_projecting(const ForwardStep& step, bool turned) {
    ForwardArrays<Real>& arrays = arrays_[0];
    move_arrays(context_, step, 0, arrays);
    if constexpr (F::kQuantised) {
      if (context_.shape.h_stage == 0) quantise_operands(0, step);
    }
    const PackedCell& packed = context_.job.packed;
    const auto panels = [](const PackedProduct& product) FUSEDRNN_LAMBDA {
      return Panels<F>{static_cast<const Panel*>(product.weights), 0};
    };
    ForwardMapper<F> mapper(context_, step, 0, arrays);
    StageProduct<F>& product = products_[0];
    product.move(context_, step, 0);
    product.set_weights(panels(packed.stages[0]));
    const ProjectingTiles<F> tiles{{context_, panels(packed.input)},
                                   {context_, step, 0, product, maps_[0], mapper, rest_},
                                   arrays};
    const int of_input = context_.projection_vectors();
    const int of_stage = product.vectors();
    for_products<F>(registers_, of_input > of_stage ? of_input : of_stage, tiles,
                    context_.panels('H'), step.rows, turned);
    rest_.finish();
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
  StageProduct<F> products_[kMaxStages];
  RestOfForward<F> rest_;
  int64_t rows_together_ = 0, panels_together_ = 0;
};

template <class F>
FUSEDRNN_ONCE void run_forward(const ForwardJob& job, int thread) {
  typename F::MatrixUnit::Registers registers(job.matrix);
  Forward<F>(job, thread, registers).run();
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
