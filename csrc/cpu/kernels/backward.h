// Backpropagation through time, of one thread. Each step multiplies the gradients of the following
// step by the recurrent weights and runs the cell's backward on the result while the tile is at
// hand; only those gradients (delta) are exchanged. The gradients of the parameters come after the
// walk, as products and sums over all steps.
#pragma once

#include "cpu/kernels/backward_context.h"
#include "cpu/kernels/parameter_gradients.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// One stage of one step.
template <class Cell, class F, int Index>
struct BackwardStage {
  using Real = typename F::Real;
  using V = typename F::V;
  using Saved = SavedOf<Cell, F>;
  static constexpr CellShape kCell = shape_of<Cell>();
  static constexpr StageShape kStage = kCell.stages[Index];
  static constexpr bool kHidden = kStage.units == 'H';
  static constexpr bool kFirst = Index == kCell.stage_count - 1;  // going backward
  // The stage whose deltas bring the gradient of what this one set or passed on; -1: none.
  static constexpr int kSource = kFirst ? kCell.h_stage : kStage.passes ? Index + 1 : -1;
  static constexpr int W = V::width, U = Cell::kUnitVectors * W;
  static constexpr int S = Cell::kSaved, D = Cell::kDeltas, kStates = cells::kStateCount<Cell>;
  static constexpr int kVectors = cells::kVectorCount<Cell>;

  const BackwardContext<F>& context;
  int64_t step, time;
  const uint8_t* flags;            // of this step, or null
  const uint8_t* following_flags;  // of the following one, or null

  BackwardStage(const BackwardContext<F>& thread, int64_t number)
      : context(thread),
        step(number),
        time(context.slots.time(step)),
        flags(context.flags_at(step)),
        following_flags(context.flags_at(step + 1)) {}

  static constexpr bool walks(int s) { return kCell.states[s].size == kStage.units; }

  void run(Tile tile) const {
    alignas(64) Real sums[BackwardContext<F>::kSums];
    if (kSource >= 0 && (!kFirst || step + 1 < context.p.T) && has_gradient(tile)) {
      multiply_deltas(context, kSource, kFirst ? context.slots.time(step + 1) : time, tile, sums);
    } else {  // the product of nothing
      for (int i = 0; i < BackwardContext<F>::kSums; i += W) V::zero().store(sums + i);
    }
    for_vectors<F>(tile, sums, [this](V product, int64_t unit, int64_t b) FUSEDRNN_LAMBDA {
      finish(product, unit, b);
    });
  }

  // Deltas of steps that do not exist are zero, and so is their product.
  FUSEDRNN_MEMBER bool has_gradient(Tile tile) const {
    if (flags == nullptr) return true;
    bool any = false;
    for (int64_t b = tile.row; b < tile.row + tile.rows; ++b) {
      any |= (flags[b] & kValid) != 0;
      any |= following_flags != nullptr && (following_flags[b] & kValid) != 0;
    }
    return any;
  }

  FUSEDRNN_MEMBER void finish(V product, int64_t unit, int64_t b) const {
    const int64_t units = extent(context.p, kStage.units);
    const int lanes = context.lanes(unit, units);
    if (lanes == 0) {
      if (F::kDepthUnit > W && unit < F::padded(units)) fill_up_deltas(unit, b);
      return;
    }
    V delta[D], dnext[kStates], dprev[kStates];
    for (int s = 0; s < kStates; ++s) {
      if (walks(s)) dnext[s] = V::load(context.carry_row(s, b) + unit);
    }
    if constexpr (kFirst && kSource >= 0) {
      if (is_multiplied(following_flags, b)) dnext[0] = dnext[0] + product;
    }
    for (int s = 0; s < kStates; ++s) {
      if (walks(s)) dprev[s] = dnext[s];
    }
    if (is_valid(flags, b)) {
      if (kFirst && context.call.dy.data != nullptr) {
        dnext[0] = dnext[0] + load_dy(unit, b, lanes);
      }
      compute(unit, b, dnext, product, delta, dprev);
    } else {
      for (int d = 0; d < D; ++d) delta[d] = V::zero();
    }
    for (int s = 0; s < kStates; ++s) {
      if (walks(s)) dprev[s].store(context.carry_row(s, b) + unit);
    }
    // Products read what fills up the block: zeros, not the gradients of lanes beyond the last
    // unit, which are NaN where x was infinite.
    const int filled = BackwardContext<F>::lanes(unit, F::padded(units));
    Row* dst = context.delta_row(time, b) + unit;
    for (int d = 0; d < D; ++d, dst += context.job.delta_block) {
      if (Cell::delta_stage(d) != Index) continue;
      const V gradient = F::round_gradient(delta[d]);
      if (lanes == W) {
        gradient.store(dst);
      } else {
        if (F::kDepthUnit > 1) V::zero().store(dst, filled);
        gradient.store(dst, lanes);
      }
    }
  }

  FUSEDRNN_MEMBER void compute(int64_t unit, int64_t b, const V* dnext, V dpassed, V* delta,
                               V* dprev) const {
    V saved[S], w[kVectors + 1], prev[kStates];
    if constexpr (kHidden) {
      const int64_t panel = unit / U, panels = blocks_of(context.p.H, U);
      const Saved* blocks = static_cast<const Saved*>(context.job.kept.saved) +
                            ((time * context.p.B + b) * panels + panel) * S * U + unit % U;
      const Real* vectors =
          static_cast<const Real*>(context.job.vectors) + panel * kVectors * U + unit % U;
      for (int i = 0; i < S; ++i) saved[i] = V::load(blocks + i * U);
      for (int k = 0; k < kVectors; ++k) w[k] = V::load(vectors + k * U);
    }
    const int64_t slot = context.slots.entering(step);
    for (int s = 0; s < kStates; ++s) {
      if (walks(s)) prev[s] = context.load_state(s, slot, b, unit);
    }
    Cell::template backward<Index>(saved, w, prev, dnext, dpassed, delta, dprev);
    for (int s = 0; s < kStates && is_cut(flags, b); ++s) {
      if (kCell.states[s].first_stage == Index) dprev[s] = V::zero();
    }
  }

  FUSEDRNN_MEMBER V load_dy(int64_t unit, int64_t b, int lanes) const {
    const Sequence& dy = context.call.dy;
    const auto* src =
        static_cast<const typename F::Edge*>(dy.data) + time * dy.t_stride + b * dy.b_stride + unit;
    return lanes == W ? V::load(src) : V::load(src, lanes);
  }

  FUSEDRNN_MEMBER void fill_up_deltas(int64_t unit, int64_t b) const {
    for (int d = 0; d < D; ++d) {
      if (Cell::delta_stage(d) != Index) continue;
      V::zero().store(context.delta_row(time, b) + d * context.job.delta_block + unit);
    }
  }

  using Row = typename F::Row;
};

template <class Cell, class F>
class Backward {
 public:
  Backward(const BackwardJob& job, int thread) : context_(job, thread) {}

  void run() {
    Barrier& all = *context_.job.grid.all;
    pack_backward(context_);
    begin_carry(context_);
    wait_at(all);
    for (int64_t step = context_.p.T - 1; step >= 0; --step) walk_stages<kStages - 1>(step);
    end_carry(context_, registers_);
    wait_at(all);
    parameter_gradients(context_, registers_);
  }

 private:
  static constexpr int kStages = cells::kStageCount<Cell>;

  template <int Index>
  FUSEDRNN_MEMBER void walk_stages(int64_t step) {
    using Stage = BackwardStage<Cell, F, Index>;
    for_products<F, kRecurrentPanel>(registers_, context_.p.B, Stage(context_, step),
                                     context_.panels(Stage::kStage.units), context_.share.rows,
                                     turns(step));
    if (Stage::kStage.meets_backward && context_.share.parts > 1) {
      wait_at(*context_.job.grid.group[context_.share.group]);
    }
    if constexpr (Index > 0) walk_stages<Index - 1>(step);
  }

  const BackwardContext<F> context_;
  typename F::MatrixUnit::Registers registers_;
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
