// One stage of one step of the walk back, tile by tile: the product of the deltas that reach what
// the stage set or passed on, and the cell's equations on it.
#pragma once

#include "cpu/kernels/narrow_tile.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// The stage whose deltas bring the gradient of what stage `index` set or passed on; -1: none.
constexpr int source_stage(const CellShape& shape, int index) {
  if (index == shape.stage_count - 1) return shape.h_stage;
  return shape.stages[index].passes ? index + 1 : -1;
}

// What of a stage's arrays is the same in every step, from the thread's first row and unit 0 on.
// Null is what the format stores as other numbers than maps compute with.
template <class F>
FUSEDRNN_ONCE void find_arrays(const BackwardContext<F>& context, int index,
                               BackwardArrays<typename F::Real>& arrays) {
  using Real = typename F::Real;
  const KernelShape& shape = context.shape;
  const BackwardCall& call = context.call;
  const BackwardJob& job = context.job;
  const StageShape& stage = shape.stages[index];
  const int64_t stride = context.row_stride;
  arrays = {};
  arrays.problem = &context.p;
  arrays.dparameters = call.dparameters;
  arrays.clip_dh = static_cast<typename PlainOf<Real>::type>(call.clip_dh);
  if (stage.units == 'H') {
    arrays.vectors = static_cast<const Real*>(job.vectors);
    arrays.saved.stride = context.saved_stride();
    arrays.candidate = context.mask_rows(job.noise.candidate, 0, 0);
  }
  for (int s = 0; s < shape.state_count; ++s) {
    arrays.zoneout[s] = context.mask_rows(job.noise.zoneout[s], 0, 0);
    if (shape.states[s].size != stage.units) continue;
    arrays.prev[s].stride = stride;
    arrays.carry[s] = {context.carry_row(s, 0), stride};
    if (job.resets[s] != nullptr) arrays.resets[s] = {context.resets_row(s, 0), stride};
  }
  if (shape.norm_count > 0) {
    const int64_t blocks = shape.normed_blocks;
    arrays.dnormed = {static_cast<Real*>(job.dnormed) + context.state_offset(0, 0) * blocks,
                      stride * blocks};
    arrays.dnormed_block = job.ld_state;
    arrays.dpassed = {static_cast<const Real*>(job.dpassed) + context.state_offset(0, 0), stride};
  }
  arrays.delta_block = job.delta_block;
}

// What each step has in other places.
template <class F>
FUSEDRNN_MEMBER void move_arrays(const BackwardContext<F>& context, const BackwardStep& step,
                                 int index, BackwardArrays<typename F::Real>& arrays) {
  using Real = typename F::Real;
  const KernelShape& shape = context.shape;
  const BackwardCall& call = context.call;
  const BackwardJob& job = context.job;
  const StageShape& stage = shape.stages[index];
  arrays.flags = step.flags;
  arrays.following_flags = step.following_flags;
  if (stage.units == 'H' && shape.saved_bytes == sizeof(Real)) {
    arrays.saved.data = static_cast<const Real*>(job.kept.saved) +
                        context.saved_offset(context.kept_slot(step.time), 0);
  }
  for (int s = 0; s < shape.state_count; ++s) {
    if (shape.states[s].size != stage.units) continue;
    if (s > 0 || kSame<typename F::State, Real>) {
      arrays.prev[s].data = context.state_row(s, step.entering, 0);
    }
    if constexpr (kSame<typename F::Edge, Real>) {
      if (s == 0) arrays.dy = context.template plain_rows<const Real>(call.dy, step.time, 0);
      if (step.shows_states) {
        arrays.dstate_y[s] =
            context.template plain_rows<const Real>(call.dstate_y[s], step.time, 0);
      }
    }
    if (job.flow[s] != nullptr) {
      arrays.flow[s] = context.flow_row(s, step.number, 0);
    }
  }
  if constexpr (!F::kConverts)
    arrays.delta = {context.delta_row(step.time, 0), context.delta_stride};
}

// Of formats with a matrix unit.
template <class F>
using RestOfBackward = RestOfMap<BackwardMapper<F>, BackwardMap<typename F::Real>,
                                 F::MatrixUnit::kPresent ? BackwardContext<F>::kSums : 1>;

template <class F>
struct BackwardTiles {
  using Real = typename F::Real;

  const BackwardContext<F>& context;
  const BackwardStep& step;
  int index;  // of the stage
  BackwardMap<Real> map;
  BackwardMapper<F>& mapper;
  RestOfBackward<F>& rest;  // who has run tiles of a matrix unit must finish it

  void run(const Tile& tile) const {
    constexpr int kPanel = BackwardContext<F>::kPanel;
    if constexpr (F::MatrixUnit::kPresent) {
      if (tile.by_matrix_unit()) {
        rest.next();
        multiply(tile, rest.sums(), rest.meanwhile());
        rest.finish();
        rest.begin(mapper, map, tile, kPanel);
        return;
      }
    }
    alignas(64) Real sums[BackwardContext<F>::kSums];
    multiply(tile, sums, nullptr);
    mapper.run(tile, map, sums + tile.repeated * kPanel);
  }

  FUSEDRNN_MEMBER void multiply(const Tile& tile, Real* sums, const Meanwhile* meanwhile) const {
    constexpr int kSums = BackwardContext<F>::kSums;
    const bool last = index == context.shape.stage_count - 1;
    const int source = source_stage(context.shape, index);
    if (source >= 0 && has_gradient(tile, last)) {
      const int64_t time = last ? context.slots.time(step.number + 1) : step.time;
      if (tile.rows > kFetchingRows) {
        fetch_of_step(tile, step.time);
      } else if (tile.rows > 1 || !foresees_saved()) {  // whose product is too short
        const int64_t next = step.time + (context.p.reverse ? 1 : -1);
        if (next >= context.chunk.begin && next < context.chunk.end) fetch_of_step(tile, next);
      }
      multiply_deltas(context, source, time, tile, sums, meanwhile);
    } else {  // the product of nothing
      for (int i = 0; i < kSums; i += F::V::width) F::V::zero().store(sums + i);
    }
  }

  // Of a single row the hardware asks for the next step by itself, as far as that begins in the
  // same page. A small step notices when it is asked for twice.
  FUSEDRNN_MEMBER bool foresees_saved() const {
    constexpr int64_t kPageBytes = 4096;
    const auto bytes = static_cast<int64_t>(context.shape.saved_bytes);
    return context.saved_stride() * bytes < kPageBytes;
  }

  // What the map reads and writes of a step lies in memory that no cache holds.
  FUSEDRNN_MEMBER void fetch_of_step(const Tile& tile, int64_t time) const {
    const KernelShape& shape = context.shape;
    const StageShape& stage = shape.stages[index];
    const int64_t unit = tile.panel * context.panel_units;
    const int64_t units = tile.panels * context.panel_units;
    if (stage.units == 'H') {
      const int64_t bytes = static_cast<int64_t>(shape.saved_bytes), numbers = shape.saved;
      const int64_t first =
          context.saved_offset(context.kept_slot(time), tile.row) + unit * numbers;
      fetch_rows(static_cast<const char*>(context.job.kept.saved) + first * bytes,
                 context.saved_stride() * bytes, tile.rows, units * numbers * bytes);
    }
    const int64_t entering = context.kept_slot(time + context.p.reverse);
    for (int s = 0; s < shape.state_count; ++s) {
      if (shape.states[s].size != stage.units || (s == 0 && !shape.reads_h)) continue;
      const int64_t bytes = s == 0 ? sizeof(typename F::State) : sizeof(Real);
      const void* const first =
          s == 0 ? static_cast<const void*>(context.h_row(entering, tile.row) + unit)
                 : context.state_row(s, entering, tile.row) + unit;
      fetch_rows(first, context.row_stride * bytes, tile.rows, units * bytes);
    }
    if (context.sequences.order.numbers == nullptr && shape.states[0].size == stage.units) {
      const auto dy =
          context.template plain_rows<const typename F::Edge>(context.call.dy, time, unit);
      constexpr int64_t kBytes = sizeof(typename F::Edge);
      fetch_rows(dy.data == nullptr ? nullptr : dy.at(tile.row, 0), dy.stride * kBytes, tile.rows,
                 units * kBytes);
    }
    constexpr int64_t kBytes = sizeof(typename F::Row);
    for (int d = 0; d < shape.deltas; ++d) {
      if (shape.delta_stage[d] != index) continue;
      fetch_rows(context.delta_row(time, tile.row) + d * context.job.delta_block + unit,
                 context.delta_stride * kBytes, tile.rows, units * kBytes);
    }
  }

  // Whether deltas reach any row: those of the following step, which nobody has written of rows
  // that do not live at it, or of this one. They are zero where a step does not exist.
  FUSEDRNN_MEMBER bool has_gradient(const Tile& tile, bool from_following) const {
    if (from_following && tile.row >= step.following.end) return false;
    const uint8_t* flags = from_following ? step.following_flags : step.flags;
    bool any = flags == nullptr;
    for (int64_t m = 0; m < tile.rows && !any; ++m) any = is_valid(flags, tile.row + m);
    return any;
  }
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
