// A cell's equations of one stage, backward, over a tile.
#pragma once

#include "cpu/kernels/map_support.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// What is not a cell's: a tile's gradients before the equations, where they are more than those of
// the next step, the stage's product and dy, and after them. Compiled once, for all stages.
struct BackwardRole {
  unsigned sets, ends;  // states that the stage sets, and those that no stage before it reads
  unsigned deltas;      // blocks that it writes
  bool first;           // going backward
  bool takes_product;   // of what h is multiplied by
};

template <class Real>
struct Around {
  using V = Vec<Real>;
  static constexpr int W = V::width;

  const BackwardArrays<Real>& arrays;
  const Tile& tile;
  const int64_t units;
  const BackwardRole role;

  // The gradients of the states that leave the step, in the carry: shown, limited, and as they are
  // wanted themselves.
  FUSEDRNN_ONCE void enter(const Real* sums) const {
    for (int s = 0; s < kMaxStates; ++s) {
      if ((role.sets >> s & 1) == 0) continue;
      for (int64_t row = tile.row; row < tile.row + tile.rows; ++row) enter(sums, s, row);
    }
  }

  // Behind the equations, which passed over steps that do not exist.
  FUSEDRNN_ONCE void leave() const {
    for (int64_t row = tile.row; row < tile.row + tile.rows; ++row) {
      if (!is_valid(arrays.flags, row)) {
        for (unsigned d = 0; role.deltas >> d != 0; ++d) {
          if ((role.deltas >> d & 1) == 0) continue;
          for_units(row, [&](int64_t unit, int lanes, int64_t) FUSEDRNN_LAMBDA {
            store(V::zero(), arrays.delta.at(row, unit) + d * arrays.delta_block, lanes);
          });
        }
      } else if (is_cut(arrays.flags, row)) {
        for (int s = 0; s < kMaxStates; ++s) {
          if ((role.ends >> s & 1) == 0) continue;
          for_units(row, [&](int64_t unit, int, int64_t) FUSEDRNN_LAMBDA {
            Real* const carry = arrays.carry[s].at(row, unit);
            add_to(arrays.resets[s], row, unit, V::load(carry));
            V::zero().store(carry);
          });
        }
      }
    }
  }

  static FUSEDRNN_MEMBER void store(V v, Real* to, int lanes) {
    if (lanes == W) {
      v.store(to);
    } else {
      v.store(to, lanes);
    }
  }

  static FUSEDRNN_MEMBER V plus(V d, const Rows<const Real>& rows, int64_t row, int64_t unit,
                                int lanes) {
    if (rows.data == nullptr) return d;
    const Real* const src = rows.at(row, unit);
    return d + (lanes == W ? V::load(src) : V::load(src, lanes));
  }

  // A gradient of state `s`, to where it is wanted.
  static FUSEDRNN_MEMBER void keep_flow(const BackwardArrays<Real>& arrays, int64_t units, V d,
                                        int s, int64_t row, int64_t unit) {
    if constexpr (kAddsSquares<V>) {
      if (arrays.sums_flow) {
        return add_squares(d, unit, units, reinterpret_cast<double*>(arrays.flow[s]));
      }
    }
    d.store(arrays.flow[s] + row * arrays.carry[s].stride + unit);
  }

 private:
  FUSEDRNN_MEMBER void enter(const Real* sums, int s, int64_t row) const {
    const bool of_h = s == 0 && role.first, shown = is_shown(arrays.flags, row);
    const bool product = of_h && role.takes_product;
    const bool multiplied = product && is_multiplied(arrays.following_flags, row);
    const bool cut = product && is_cut(arrays.following_flags, row);
    const Rows<const Real> none, dy = of_h && shown ? arrays.dy : none;
    const Rows<const Real> dstate_y = shown ? arrays.dstate_y[s] : none;
    const bool limits = s == 0 && arrays.clip_dh > 0;
    const V limit = V::set(arrays.clip_dh);
    for_units(row, [&](int64_t unit, int lanes, int64_t place) FUSEDRNN_LAMBDA {
      Real* const carry = arrays.carry[s].at(row, unit);
      V d = V::load(carry);
      if (multiplied) {
        d = d + V::load(sums + place);
      } else if (cut) {
        add_to(arrays.resets[0], row, unit, V::load(sums + place));
      }
      d = plus(d, dy, row, unit, lanes);
      d = plus(d, dstate_y, row, unit, lanes);
      if (limits) d = max(-limit, min(limit, d));
      d.store(carry);
      if (arrays.flow[s] != nullptr) keep_flow(arrays, units, d, s, row, unit);
    });
  }

  // visit(unit, lanes, place of its sums)
  template <class Visit>
  FUSEDRNN_MEMBER void for_units(int64_t row, const Visit& visit) const {
    const int64_t end = tile.panel + tile.panels, numbers = kRecurrentPanel * W;
    int64_t place = (row - tile.row) * numbers, unit = tile.panel * numbers;
    for (int64_t panel = tile.panel; panel < end; ++panel, place += tile.rows * numbers) {
      for (int n = 0; n < kRecurrentPanel; ++n, unit += W) {
        const int lanes = lanes_at<V>(unit, units);
        if (lanes > 0) visit(unit, lanes, place + n * W);
      }
    }
  }

  // Where anyone asks for the sum.
  static FUSEDRNN_MEMBER void add_to(const Rows<Real>& sums, int64_t row, int64_t unit,
                                     V gradient) {
    if (sums.data == nullptr) return;
    Real* const sum = sums.at(row, unit);
    (V::load(sum) + gradient).store(sum);
  }
};

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
  // Whether the product and dy are to be added, and whether gradients of states are wanted, which
  // enter() else has done.
  const bool plain, flows;
  const bool zones;  // whether states may have stayed as they were

  static constexpr bool walks(int s) { return kCell.states[s].size == kStage.units; }
  // Whether it is the stage that set state `s`, and the last one backward that reads it.
  static constexpr bool set(int s) { return kCell.states[s].last_stage == Index && walks(s); }
  static constexpr bool ends(int s) { return kCell.states[s].first_stage == Index && walks(s); }

  static constexpr bool kTakesProduct = kFirst && kCell.h_stage >= 0;
  static_assert(!kFirst || set(0));
  static_assert(kCell.deltas < 32);  // bits of a role

  FUSEDRNN_FLAT static void map(const BackwardArrays<Real>& arrays, const Tile& tile,
                                const Real* sums) {
    bool flows = false;
    bool plain = !(arrays.clip_dh > 0) &&
                 all_are(arrays.flags, tile, kValid | kShown | kCut, kValid | kShown) &&
                 all_are(arrays.following_flags, tile, kValid | kCut, kValid);
    for (int s = 0; s < kStates; ++s) {
      plain &= arrays.dstate_y[s].data == nullptr;
      flows |= arrays.flow[s] != nullptr;
    }
    const BackwardStage stage{arrays, extent(*arrays.problem, kStage.units), plain, plain && flows,
                              zones_out(*arrays.problem)};
    if (!plain) Around<Real>{arrays, tile, stage.units, stage.role()}.enter(sums);
    with_constants<Cell, Real, kHidden>(*arrays.problem, [&](const auto& constants) {
      for_vectors<V>(tile, sums, [&](V product, int64_t unit, int64_t row) {
        const int lanes = lanes_at<V>(unit, stage.units);
        if (lanes > 0 && (plain || is_valid(arrays.flags, row))) {
          stage.finish(product, {row, unit}, lanes, constants);
        }
      });
    });
    if (!plain && arrays.flags != nullptr) {
      Around<Real>{arrays, tile, stage.units, stage.role()}.leave();
    }
  }

  BackwardRole role() const {
    BackwardRole role{0, 0, 0, kFirst, kTakesProduct};
    for (int s = 0; s < kStates; ++s) {
      role.sets |= set(s) ? 1u << s : 0u;
      role.ends |= ends(s) ? 1u << s : 0u;
    }
    for (int d = 0; d < kCell.deltas; ++d) role.deltas |= writes(d) ? 1u << d : 0u;
    return role;
  }

  struct Site {
    int64_t row, unit;
  };

  template <class K>
  void finish(V product, Site at, int lanes, const K& constants) const {
    V delta[D], dnext[kStates], dprev[kStates];
    for (int s = 0; s < kStates; ++s) {
      if (walks(s)) dnext[s] = V::load(arrays.carry[s].at(at.row, at.unit));
    }
    if (kFirst && plain) {
      if constexpr (kTakesProduct) dnext[0] = dnext[0] + product;
      dnext[0] = Around<Real>::plus(dnext[0], arrays.dy, at.row, at.unit, lanes);
    }
    for (int s = 0; s < kStates && flows; ++s) {
      if (!set(s) || arrays.flow[s] == nullptr) continue;
      Around<Real>::keep_flow(arrays, units, dnext[s], s, at.row, at.unit);
    }
    if (zones) zone_out(at, dnext);
    for (int s = 0; s < kStates; ++s) {
      if (walks(s)) dprev[s] = dnext[s];
    }
    compute(at, dnext, product, delta, dprev, constants);
    for (int s = 0; s < kStates; ++s) {
      if (walks(s)) dprev[s].store(arrays.carry[s].at(at.row, at.unit));
    }
    Real* dst = arrays.delta.at(at.row, at.unit);
    FUSEDRNN_UNROLL
    for (int d = 0; d < kCell.deltas; ++d, dst += arrays.delta_block) {
      if (writes(d)) Around<Real>::store(delta[d], dst, lanes);
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

  // Whether the stage makes block d, and anything reads it.
  bool writes(int d) const {
    if (Cell::delta_stage(d) != Index) return false;
    const int parameter = kCell.delta_only_for[d];
    return parameter < 0 || arrays.dparameters[parameter].data != nullptr;
  }
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
