// One stage of one step of the walk back, tile by tile: the product of the deltas that reach what
// the stage set or passed on, and the cell's equations on it.
#pragma once

#include "cpu/kernels/backward_context.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Where a step's arrays lie.
struct BackwardStep {
  int64_t number, time, entering;
  const uint8_t* flags;            // of this step, or null
  const uint8_t* following_flags;  // of the following one, or null
  bool shows_states;               // whether there are gradients of every step's states beside dy

  template <class F>
  FUSEDRNN_MEMBER BackwardStep(const BackwardContext<F>& context, int64_t step)
      : number(step),
        time(context.slots.time(step)),
        entering(context.slots.entering(step)),
        flags(context.flags_at(step)),
        following_flags(context.flags_at(step + 1)),
        shows_states(false) {
    for (const Sequence& dy : context.call.dstate_y) shows_states |= dy.data != nullptr;
  }
};

// A cell's equations of one stage over a tile, from the product that reaches it.
template <class F>
using BackwardMap = void (*)(const BackwardContext<F>& context, const BackwardStep& step,
                             const Tile& tile, const typename F::Real* sums);

// The stage whose deltas bring the gradient of what stage `index` set or passed on; -1: none.
constexpr int source_stage(const CellShape& shape, int index) {
  if (index == shape.stage_count - 1) return shape.h_stage;
  return shape.stages[index].passes ? index + 1 : -1;
}

template <class F>
struct BackwardTiles {
  const BackwardContext<F>& context;
  const BackwardStep& step;
  int index;  // of the stage
  BackwardMap<F> map;

  void run(Tile tile) const {
    constexpr int kSums = BackwardContext<F>::kSums;
    alignas(64) typename F::Real sums[kSums];
    const bool last = index == context.shape.stage_count - 1;
    const int source = source_stage(context.shape, index);
    if (source >= 0 && (!last || step.number + 1 < context.p.T) && has_gradient(tile)) {
      const int64_t time = last ? context.slots.time(step.number + 1) : step.time;
      multiply_deltas(context, source, time, tile, sums);
    } else {  // the product of nothing
      for (int i = 0; i < kSums; i += F::V::width) F::V::zero().store(sums + i);
    }
    map(context, step, tile, sums);
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

// By block of gradients: the optional parameter that it is for and nothing else, or -1.
template <class Cell>
struct OptionalDeltas {
  int parameter[Cell::kDeltas] = {};
  bool any = false;

  consteval OptionalDeltas() {
    for (int d = 0; d < Cell::kDeltas; ++d) {
      parameter[d] = cells::only_for_optional<Cell>(d);
      any = any || parameter[d] >= 0;
    }
  }
};

template <class Cell, class F, int Index>
struct BackwardStage {
  using Real = typename F::Real;
  using Row = typename F::Row;
  using V = typename F::V;
  using Saved = SavedOf<Cell, F>;
  static constexpr CellShape kCell = shape_of<Cell>();
  static constexpr StageShape kStage = kCell.stages[Index];
  static constexpr bool kHidden = kStage.units == 'H';
  static constexpr bool kFirst = Index == kCell.stage_count - 1;  // going backward
  static constexpr int W = V::width, U = Cell::kUnitVectors * W;
  static constexpr int S = Cell::kSaved, D = Cell::kDeltas, kStates = cells::kStateCount<Cell>;
  static constexpr int kVectors = cells::kVectorCount<Cell>;
  static constexpr OptionalDeltas<Cell> kOptional{};

  const BackwardContext<F>& context;
  const BackwardStep& step;

  static constexpr bool walks(int s) { return kCell.states[s].size == kStage.units; }
  // Whether it is the stage that set state `s`, and the last one backward that reads it.
  static constexpr bool set(int s) { return kCell.states[s].last_stage == Index && walks(s); }
  static constexpr bool ends(int s) { return kCell.states[s].first_stage == Index && walks(s); }

  FUSEDRNN_FLAT static void map(const BackwardContext<F>& context, const BackwardStep& step,
                                const Tile& tile, const Real* sums) {
    const BackwardStage stage{context, step};
    with_constants<Cell, Real>(context.p, [&](const auto& constants) {
      for_vectors<F>(tile, sums, [&](V product, int64_t unit, int64_t b) {
        stage.finish(product, unit, b, constants);
      });
    });
  }

  template <class K>
  void finish(V product, int64_t unit, int64_t b, const K& constants) const {
    const int64_t units = extent(context.p, kStage.units);
    const int lanes = lanes_at<V>(unit, units);
    if (lanes == 0) {
      if (F::kDepthUnit > W && unit < F::padded(units)) fill_up_deltas(unit, b);
      return;
    }
    V delta[D], dnext[kStates], dprev[kStates];
    for (int s = 0; s < kStates; ++s) {
      if (walks(s)) dnext[s] = V::load(context.carry_row(s, b) + unit);
    }
    if constexpr (kFirst && kCell.h_stage >= 0) {
      if (is_multiplied(step.following_flags, b)) {
        dnext[0] = dnext[0] + product;
      } else if (is_cut(step.following_flags, b)) {
        context.add_to_reset(0, b, unit, product);
      }
    }
    if (kFirst && context.call.dy.data != nullptr && is_shown(step.flags, b)) {
      dnext[0] = dnext[0] + load_dy(context.call.dy, unit, b, lanes);
    }
    if (step.shows_states && is_shown(step.flags, b)) {
      for (int s = 0; s < kStates; ++s) {
        const Sequence& dy = context.call.dstate_y[s];
        if (set(s) && dy.data != nullptr) dnext[s] = dnext[s] + load_dy(dy, unit, b, lanes);
      }
    }
    for (int s = 0; s < kStates; ++s) {
      if (walks(s)) dprev[s] = dnext[s];
    }
    if (is_valid(step.flags, b)) {
      compute(unit, b, dnext, product, delta, dprev, constants);
    } else {
      for (int d = 0; d < D; ++d) delta[d] = V::zero();
    }
    for (int s = 0; s < kStates; ++s) {
      if (walks(s)) dprev[s].store(context.carry_row(s, b) + unit);
    }
    // Products read what fills up the block: zeros, not the gradients of lanes beyond the last
    // unit, which are NaN where x was infinite.
    const int filled = lanes_at<V>(unit, F::padded(units));
    Row* dst = context.delta_row(step.time, b) + unit;
    for (int d = 0; d < D; ++d, dst += context.job.delta_block) {
      if (Cell::delta_stage(d) != Index || !is_wanted(d)) continue;
      const V gradient = F::round_gradient(delta[d]);
      if (lanes == W) {
        gradient.store(dst);
      } else {
        if (F::kDepthUnit > 1) V::zero().store(dst, filled);
        gradient.store(dst, lanes);
      }
    }
  }

  template <class K>
  void compute(int64_t unit, int64_t b, const V* dnext, V dpassed, V* delta, V* dprev,
               [[maybe_unused]] const K& constants) const {
    V saved[S], w[kVectors + 1], prev[kStates];
    if constexpr (kHidden) {
      const int64_t panel = unit / U, panels = blocks_of(context.p.H, U);
      const Saved* blocks = static_cast<const Saved*>(context.job.kept.saved) +
                            ((step.time * context.p.B + b) * panels + panel) * S * U + unit % U;
      const Real* vectors =
          static_cast<const Real*>(context.job.vectors) + panel * kVectors * U + unit % U;
      for (int i = 0; i < S; ++i) saved[i] = V::load(blocks + i * U);
      for (int k = 0; k < kVectors; ++k) w[k] = V::load(vectors + k * U);
    }
    for (int s = 0; s < kStates; ++s) {
      if (walks(s)) prev[s] = context.load_state(s, step.entering, b, unit);
    }
    if constexpr (cells::kConstantCount<Cell> > 0) {
      Cell::template backward<Index>(saved, w, prev, dnext, dpassed, delta, dprev, constants);
    } else {
      Cell::template backward<Index>(saved, w, prev, dnext, dpassed, delta, dprev);
    }
    for (int s = 0; s < kStates && is_cut(step.flags, b); ++s) {
      if (!ends(s)) continue;
      context.add_to_reset(s, b, unit, dprev[s]);
      dprev[s] = V::zero();
    }
  }

  // Whether anything reads block d.
  bool is_wanted(int d) const {
    if constexpr (!kOptional.any) return true;
    const int parameter = kOptional.parameter[d];
    return parameter < 0 || context.call.dparameters[parameter].data != nullptr;
  }

  V load_dy(const Sequence& dy, int64_t unit, int64_t b, int lanes) const {
    const auto* src = static_cast<const typename F::Edge*>(dy.data) + step.time * dy.t_stride +
                      b * dy.b_stride + unit;
    return lanes == W ? V::load(src) : V::load(src, lanes);
  }

  void fill_up_deltas(int64_t unit, int64_t b) const {
    for (int d = 0; d < D; ++d) {
      if (Cell::delta_stage(d) != Index) continue;
      V::zero().store(context.delta_row(step.time, b) + d * context.job.delta_block + unit);
    }
  }
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
