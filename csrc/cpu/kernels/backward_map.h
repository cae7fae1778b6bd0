// A cell's equations of one stage, backward, over a tile.
#pragma once

#include "cpu/kernels/map_support.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class Cell, class Real, int Index>
struct BackwardStage {
  using V = Vec<Real>;
  static constexpr CellShape kCell = shape_of<Cell>();
  static constexpr StageShape kStage = kCell.stages[Index];
  static constexpr bool kHidden = kStage.units == 'H';
  static constexpr bool kFirst = Index == kCell.stage_count - 1;  // going backward
  static constexpr int W = V::width, U = Cell::kUnitVectors * W;
  static constexpr int S = Cell::kSaved, D = Cell::kDeltas, kStates = cells::kStateCount<Cell>;
  static constexpr int kVectors = cells::kVectorCount<Cell>;

  const BackwardArrays<Real>& arrays;
  const int64_t units;
  const bool shows_states;  // whether there are gradients of every step's states beside dy
  const bool inspects;      // whether gradients of states are wanted or limited
  const bool zones;         // whether states may have stayed as they were

  static constexpr bool walks(int s) { return kCell.states[s].size == kStage.units; }
  // Whether it is the stage that set state `s`, and the last one backward that reads it.
  static constexpr bool set(int s) { return kCell.states[s].last_stage == Index && walks(s); }
  static constexpr bool ends(int s) { return kCell.states[s].first_stage == Index && walks(s); }

  FUSEDRNN_FLAT static void map(const BackwardArrays<Real>& arrays, const Tile& tile,
                                const Real* sums) {
    bool shows_states = false;
    bool inspects = arrays.clip_dh > 0;
    for (int s = 0; s < kStates; ++s) {
      shows_states |= arrays.dstate_y[s].data != nullptr;
      inspects |= arrays.flow[s] != nullptr;
    }
    const BackwardStage stage{arrays, extent(*arrays.problem, kStage.units), shows_states, inspects,
                              zones_out(*arrays.problem)};
    with_constants<Cell, Real>(*arrays.problem, [&](const auto& constants) {
      for_vectors<V>(tile, sums, [&](V product, int64_t unit, int64_t row) {
        const int lanes = lanes_at<V>(unit, stage.units);
        if (lanes > 0) stage.finish(product, {row, unit}, lanes, constants);
      });
    });
  }

  struct Site {
    int64_t row, unit;
  };

  template <class K>
  void finish(V product, Site at, int lanes, const K& constants) const {
    const bool shown = is_shown(arrays.flags, at.row);
    V delta[D], dnext[kStates], dprev[kStates];
    for (int s = 0; s < kStates; ++s) {
      if (walks(s)) dnext[s] = V::load(arrays.carry[s].at(at.row, at.unit));
    }
    if constexpr (kFirst && kCell.h_stage >= 0) {
      if (is_multiplied(arrays.following_flags, at.row)) {
        dnext[0] = dnext[0] + product;
      } else if (is_cut(arrays.following_flags, at.row)) {
        add_to(arrays.resets[0], at, product);
      }
    }
    if (kFirst && arrays.dy.data != nullptr && shown) {
      dnext[0] = dnext[0] + load(arrays.dy, at, lanes);
    }
    for (int s = 0; s < kStates && shows_states && shown; ++s) {
      if (!set(s) || arrays.dstate_y[s].data == nullptr) continue;
      dnext[s] = dnext[s] + load(arrays.dstate_y[s], at, lanes);
    }
    if (inspects) {
      if (set(0) && arrays.clip_dh > 0) {
        const V limit = V::set(arrays.clip_dh);
        dnext[0] = max(-limit, min(limit, dnext[0]));
      }
      for (int s = 0; s < kStates; ++s) {
        if (!set(s) || arrays.flow[s] == nullptr) continue;
        if constexpr (kAddsSquares<V>) {
          if (arrays.sums_flow) {
            add_squares(dnext[s], at.unit, units, reinterpret_cast<double*>(arrays.flow[s]));
            continue;
          }
        }
        dnext[s].store(arrays.flow[s] + at.row * arrays.carry[s].stride + at.unit);
      }
    }
    if (zones && is_valid(arrays.flags, at.row)) zone_out(at, dnext);
    for (int s = 0; s < kStates; ++s) {
      if (walks(s)) dprev[s] = dnext[s];
    }
    if (is_valid(arrays.flags, at.row)) {
      compute(at, dnext, product, delta, dprev, constants);
    } else {
      FUSEDRNN_UNROLL
      for (int d = 0; d < D; ++d) delta[d] = V::zero();
    }
    for (int s = 0; s < kStates; ++s) {
      if (walks(s)) dprev[s].store(arrays.carry[s].at(at.row, at.unit));
    }
    Real* dst = arrays.delta.at(at.row, at.unit);
    FUSEDRNN_UNROLL
    for (int d = 0; d < kCell.deltas; ++d, dst += arrays.delta_block) {
      if (Cell::delta_stage(d) != Index || !is_wanted(d)) continue;
      if (lanes == W) {
        delta[d].store(dst);
      } else {
        delta[d].store(dst, lanes);
      }
    }
  }

  template <class K>
  void compute(Site at, const V* dnext, V dpassed, V* delta, V* dprev,
               [[maybe_unused]] const K& constants) const {
    V saved[S], w[kVectors + 1], prev[kStates];
    if constexpr (kStage.passes_row) dpassed = V::load(arrays.dpassed.at(at.row, at.unit));
    if constexpr (kHidden) {
      const int64_t block = at.unit / U, lane = at.unit % U;
      const Real* gates = arrays.saved.at(at.row, block * S * U + lane);
      const Real* vectors = arrays.vectors + block * kVectors * U + lane;
      FUSEDRNN_UNROLL
      for (int i = 0; i < S; ++i) saved[i] = V::load(gates + i * U);
      FUSEDRNN_UNROLL
      for (int k = 0; k < kVectors; ++k) w[k] = V::load(vectors + k * U);
    }
    for (int s = 0; s < kStates; ++s) {
      if (walks(s)) prev[s] = V::load(arrays.prev[s].at(at.row, at.unit));
    }
    if constexpr (cells::masks_candidate<Cell>()) {
      cells::Masked<K, V> masked{constants, arrays.candidate.data != nullptr, V::set(1)};
      if (masked.masks) masked.candidate = V::load(arrays.candidate.at(at.row, at.unit));
      Cell::template backward<Index>(saved, w, prev, dnext, dpassed, delta, dprev, masked);
    } else if constexpr (cells::kConstantCount<Cell> > 0) {
      Cell::template backward<Index>(saved, w, prev, dnext, dpassed, delta, dprev, constants);
    } else if constexpr (cells::kNormCount<Cell> > 0) {
      V dnormed[cells::kNormedBlocks<Cell>];
      Cell::template backward<Index>(saved, w, prev, dnext, dpassed, delta, dprev, dnormed);
      FUSEDRNN_UNROLL
      for (int n = 0; n < cells::kNormedBlocks<Cell>; ++n) {
        if (Cell::normed_stage(n) != Index) continue;
        dnormed[n].store(arrays.dnormed.at(at.row, n * arrays.dnormed_block + at.unit));
      }
    } else {
      Cell::template backward<Index>(saved, w, prev, dnext, dpassed, delta, dprev);
    }
    for (int s = 0; s < kStates && zones; ++s) {
      if (set(s)) dprev[s] = dprev[s] + V::load(arrays.carry[s].at(at.row, at.unit));
    }
    for (int s = 0; s < kStates && is_cut(arrays.flags, at.row); ++s) {
      if (!ends(s)) continue;
      add_to(arrays.resets[s], at, dprev[s]);
      dprev[s] = V::zero();
    }
  }

  // From the gradients of the states that leave the step to those of what the cell computed, and of
  // what stayed, which are left in the carry until the cell's are known.
  void zone_out(Site at, V* dnext) const {
    for (int s = 0; s < kStates; ++s) {
      if (!set(s)) continue;
      const Rows<const Real>& drawn = arrays.zoneout[s];
      V stayed, computed;
      if (drawn.data != nullptr) {  // 0 or 1
        const auto computes = V::load(drawn.at(at.row, at.unit)) <= V::zero();
        stayed = select(computes, V::zero(), dnext[s]);
        computed = select(computes, dnext[s], V::zero());
      } else {
        using Number = typename PlainOf<Real>::type;
        const V stays = V::set(static_cast<Number>(arrays.problem->noise.zoneout[s]));
        stayed = cells::gradient_of_stayed(stays, dnext[s]);
        computed = cells::gradient_of_computed(stays, dnext[s]);
      }
      stayed.store(arrays.carry[s].at(at.row, at.unit));
      dnext[s] = computed;
    }
  }

  // Whether anything reads block d.
  bool is_wanted(int d) const {
    const int parameter = kCell.delta_only_for[d];
    return parameter < 0 || arrays.dparameters[parameter].data != nullptr;
  }

  static V load(const Rows<const Real>& rows, Site at, int lanes) {
    const Real* const src = rows.at(at.row, at.unit);
    return lanes == W ? V::load(src) : V::load(src, lanes);
  }

  // Where anyone asks for the sum.
  static void add_to(const Rows<Real>& sums, Site at, V gradient) {
    if (sums.data == nullptr) return;
    Real* const sum = sums.at(at.row, at.unit);
    (V::load(sum) + gradient).store(sum);
  }
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
