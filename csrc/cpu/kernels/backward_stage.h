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

// What of a stage's arrays is the same in every step, from the first sequence and unit on. Null is
// what the format stores as other numbers than maps compute with.
template <class F>
FUSEDRNN_ONCE void find_arrays(const BackwardContext<F>& context, int index,
                               BackwardArrays<typename F::Real>& arrays) {
  using Real = typename F::Real;
  const KernelShape& shape = context.shape;
  const BackwardCall& call = context.call;
  const BackwardJob& job = context.job;
  const StageShape& stage = shape.stages[index];
  arrays = {};
  arrays.problem = &context.p;
  arrays.dparameters = call.dparameters;
  arrays.clip_dh = static_cast<typename PlainOf<Real>::type>(call.clip_dh);
  if (stage.units == 'H') {
    arrays.vectors = static_cast<const Real*>(job.vectors);
    arrays.saved.stride = context.saved_numbers();
    arrays.candidate = context.mask_rows(job.noise.candidate, 0, 0);
  }
  for (int s = 0; s < shape.state_count; ++s) {
    arrays.zoneout[s] = context.mask_rows(job.noise.zoneout[s], 0, 0);
    if (shape.states[s].size != stage.units) continue;
    arrays.prev[s].stride = job.ld_state;
    arrays.carry[s] = {context.carry_row(s, 0), job.ld_state};
    arrays.resets[s] = {static_cast<Real*>(job.resets[s]), job.ld_state};
  }
  arrays.dnormed = {static_cast<Real*>(job.dnormed), shape.normed_blocks * job.ld_state};
  arrays.dnormed_block = job.ld_state;
  arrays.dpassed = {static_cast<const Real*>(job.dpassed), job.ld_state};
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
                        context.kept_slot(step.time) * context.p.B * arrays.saved.stride;
  }
  for (int s = 0; s < shape.state_count; ++s) {
    if (shape.states[s].size != stage.units) continue;
    if (s > 0 || kSame<typename F::State, Real>) {
      arrays.prev[s].data = context.state_row(s, step.entering, 0);
    }
    if constexpr (kSame<typename F::Edge, Real>) {
      if (s == 0) arrays.dy = rows_from<const Real>(call.dy, step.time, 0, 0);
      if (step.shows_states) {
        arrays.dstate_y[s] = rows_from<const Real>(call.dstate_y[s], step.time, 0, 0);
      }
    }
    if (job.flow[s] != nullptr) {
      arrays.flow[s] = {context.flow_row(s, step.number, 0), job.ld_state};
    }
  }
  if constexpr (!F::kConverts) arrays.delta = {context.delta_row(step.time, 0), job.ld_delta};
}

template <class F>
struct BackwardTiles {
  using Real = typename F::Real;

  const BackwardContext<F>& context;
  const BackwardStep& step;
  int index;  // of the stage
  BackwardMap<Real> map;
  BackwardMapper<F>& mapper;

  void run(const Tile& tile) const {
    constexpr int kSums = BackwardContext<F>::kSums;
    alignas(64) Real sums[kSums];
    const bool last = index == context.shape.stage_count - 1;
    const int source = source_stage(context.shape, index);
    if (source >= 0 && (!last || step.number + 1 < context.p.T) && has_gradient(tile)) {
      const int64_t time = last ? context.slots.time(step.number + 1) : step.time;
      multiply_deltas(context, source, time, tile, sums);
    } else {  // the product of nothing
      for (int i = 0; i < kSums; i += F::V::width) F::V::zero().store(sums + i);
    }
    mapper.run(tile, map, sums + tile.repeated * BackwardContext<F>::kPanel);
  }

  // Deltas of steps that do not exist are zero, and so is their product.
  FUSEDRNN_MEMBER bool has_gradient(const Tile& tile) const {
    if (step.flags == nullptr) return true;
    bool any = false;
    for (int64_t b = tile.row; b < tile.row + tile.rows; ++b) {
      any |= (step.flags[b] & kValid) != 0;
      any |= step.following_flags != nullptr && (step.following_flags[b] & kValid) != 0;
    }
    return any;
  }
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
