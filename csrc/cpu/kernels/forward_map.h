// A cell's equations of one stage, forward, over a tile.
#pragma once

#include "cpu/kernels/map_support.h"
#include "cpu/kernels/twin.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class Cell, class Real, int Index>
struct ForwardStage {
  using V = Vec<Real>;
  static constexpr CellShape kCell = shape_of<Cell>();
  static constexpr StageShape kStage = kCell.stages[Index];
  // Gates and what is saved are of hidden units; a stage may walk the numbers of h instead.
  static constexpr bool kHidden = kStage.units == 'H';
  static constexpr int W = V::width, U = Cell::kUnitVectors * W;
  static constexpr int G = Cell::kGates, S = Cell::kSaved, kStates = cells::kStateCount<Cell>;
  static constexpr int kVectors = cells::kVectorCount<Cell>;
  static constexpr int kFirst = kStage.product.first, kGates = kStage.product.gates;
  static constexpr int N = stage_vectors(kCell, kStage);
  // A dual number's two halves are chains enough; the portable set has few registers.
  static constexpr bool kTwins = kFusedMultiplyAdd && kSame<Real, typename PlainOf<Real>::type>;

  const ForwardArrays<Real>& arrays;
  const int64_t units;
  const bool shows_states;  // whether a state is wanted of every step
  const bool zones;         // whether states may stay as they were

  // Whether the stage walks the units of state `s`, and whether it is the one that sets it.
  static constexpr bool walks(int s) { return kCell.states[s].size == kStage.units; }
  static constexpr bool sets(int s) { return kCell.states[s].last_stage == Index && walks(s); }

  // Where vectors are saved, normalised inputs come from there: normalise_inputs() has left them.
  static constexpr int kNormedInputs = kCell.normed_inputs;
  static constexpr bool saves(int s) {
    if (kNormedInputs >= 0 && s >= kNormedInputs && s < kNormedInputs + G) return false;
    if constexpr (cells::kNormCount<Cell> > 0) return Cell::saved_stage(s) == Index;
    return true;
  }

  FUSEDRNN_FLAT static void map(const ForwardArrays<Real>& arrays, const Tile& tile,
                                const Real* sums) {
    bool shows_states = false;
    for (int s = 0; s < kStates; ++s) shows_states |= arrays.state_y[s].data != nullptr;
    const ForwardStage stage{arrays, extent(*arrays.problem, kStage.units), shows_states,
                             zones_out(*arrays.problem)};
    with_constants<Cell, Real>(*arrays.problem,
                               [&](const auto& constants) { stage.run(tile, sums, constants); });
  }

  // Sites that a step computes, as many at once as their gate maths is compiled for; one that is
  // left goes through it as two.
  template <class K>
  void run(const Tile& tile, const Real* sum, const K& constants) const {
    using X = typename OneOrTwo<V, K::kUsual && kTwins>::type;
    Site sites[Bundle<X>::count];
    int64_t panel = tile.panel, row = tile.row;
    int j = 0;
    while (panel < tile.panel + tile.panels) {
      int found = 0;
      do {
        Site& next = sites[found];
        next = site(sum + j * W, panel, j, row);
        if (++j == Cell::kUnitVectors) {
          j = 0;
          sum += N * W;
          if (++row == tile.row + tile.rows) row = tile.row, ++panel;
        }
        if (next.left <= 0) continue;
        if (is_valid(arrays.flags, next.row)) {
          ++found;
        } else {
          keep(next);
        }
      } while (found < Bundle<X>::count && panel < tile.panel + tile.panels);
      if (found == 0) break;
      if (found < Bundle<X>::count) sites[Bundle<X>::count - 1] = sites[0];
      finish<X>(sites, constants);
    }
  }

  // A vector of units of one sequence: what its gate maths reads and writes. Blocks are U apart.
  struct Site {
    const Real* u;        // the stage's product
    const Real* a;        // the input projection
    const Real* vectors;  // the vector parameters
    Real* saved;          // null where nothing is kept
    int64_t row, unit;    // from the arrays' first unit
    int64_t left;         // units from this one on
  };

  Site site(const Real* sum, int64_t panel, int j, int64_t row) const {
    Site site{sum, nullptr, nullptr, nullptr, row, 0, 0};
    site.left = units - (panel * U + j * W);
    site.unit = units - site.left - arrays.unit;
    if constexpr (kHidden) {
      const int64_t block = panel - arrays.unit / U;
      site.a = arrays.projection + block * arrays.projection_panel +
               site.row * arrays.projection_row + j * W;
      site.vectors = arrays.vectors + block * kVectors * U + j * W;
      if (arrays.saved.data != nullptr) {
        site.saved = arrays.saved.at(site.row, block * S * U + j * W);
        if constexpr (kNormedInputs >= 0) site.a = site.saved + kNormedInputs * U;
      }
    }
    return site;
  }

  template <class X, class K>
  void finish(const Site* sites, const K& constants) const {
    X prev[kStates], next[kStates];
    load_states(sites, prev);
    compute(sites, prev, next, constants);
    if (zones) zone_out(sites, prev, next);
    leave(sites, next);
  }

  // A site whose states stay as they are.
  void keep(const Site& site) const {
    V states[kStates];
    load_states(&site, states);
    leave(&site, states);
  }

  // What get(site) returns for one or two sites.
  template <class X, class Get>
  static X collect(const Site* sites, const Get& get) {
    return Bundle<X>::collect([&](int i) { return get(sites[i]); });
  }
  template <class X, class Put>
  static void each(const Site* sites, X x, const Put& put) {
    Bundle<X>::each(x, [&](int i, V v) { put(sites[i], v); });
  }

  template <class X>
  void load_states(const Site* sites, X* prev) const {
    FUSEDRNN_UNROLL
    for (int s = 0; s < kStates; ++s) {
      if (!walks(s)) continue;
      prev[s] = collect<X>(
          sites, [&](const Site& site) { return V::load(arrays.prev[s].at(site.row, site.unit)); });
    }
  }

  // The stage's equations; its gates and the next stage's operand are stored.
  template <class X, class K>
  void compute(const Site* sites, const X* prev, X* next,
               [[maybe_unused]] const K& constants) const {
    // What a stage does not use is not loaded.
    X a[G], u[G], w[kVectors + 1], saved[S]{}, passed = X::zero();
    const auto load = [&](const Real* Site::* blocks, int block) {
      return collect<X>(sites, [&](const Site& site) { return V::load(site.*blocks + block * U); });
    };
    FUSEDRNN_UNROLL
    for (int g = 0; g < kGates; ++g) u[kFirst + g] = load(&Site::u, g);
    if constexpr (kStage.reads_row) {
      u[0] = collect<X>(
          sites, [&](const Site& site) { return V::load(arrays.passed.at(site.row, site.unit)); });
    }
    FUSEDRNN_UNROLL
    for (int g = 0; g < G && kHidden; ++g) a[g] = load(&Site::a, g);
    FUSEDRNN_UNROLL
    for (int k = 0; k < kVectors && kHidden; ++k) w[k] = load(&Site::vectors, k);
    FUSEDRNN_UNROLL
    for (int s = 0; s < S && kHidden && Index > 0; ++s) {
      saved[s] = collect<X>(sites, [&](const Site& site) { return V::load(site.saved + s * U); });
    }
    if constexpr (cells::masks_candidate<Cell>()) {
      cells::Masked<K, X> masked{constants, arrays.candidate.data != nullptr, X::set(1)};
      if (masked.masks) {
        masked.candidate = collect<X>(sites, [&](const Site& site) {
          return V::load(arrays.candidate.at(site.row, site.unit));
        });
      }
      Cell::template forward<Index>(a, u, w, prev, saved, next, &passed, masked);
    } else if constexpr (cells::kConstantCount<Cell> > 0) {
      Cell::template forward<Index>(a, u, w, prev, saved, next, &passed, constants);
    } else if constexpr (cells::kNormCount<Cell> > 0) {
      constexpr int kNorms = cells::kNormCount<Cell>;
      cells::NormOf<X> norms[kNorms];
      FUSEDRNN_UNROLL
      for (int n = 0; n < kNorms; ++n) {
        if (kCell.norms[n].stage != Index) continue;
        if (kCell.norms[n].of == cells::Normed::input) {  // has been normalised
          norms[n] = {X::zero(), X::set(1)};
          continue;
        }
        const auto of = [&](Real RowNorm<Real>::* number) {
          return collect<X>(sites, [&](const Site& site) {
            return V::set(arrays.norms.at(site.row, n)->*number);
          });
        };
        norms[n] = {of(&RowNorm<Real>::mean), of(&RowNorm<Real>::scale)};
      }
      Cell::template forward<Index>(a, u, w, prev, saved, next, &passed, norms);
    } else {
      Cell::template forward<Index>(a, u, w, prev, saved, next, &passed);
    }
    if (sites[0].saved != nullptr) {
      FUSEDRNN_UNROLL
      for (int s = 0; s < S; ++s) {
        if (!saves(s)) continue;
        each(sites, saved[s], [&](const Site& site, V v) { v.store(site.saved + s * U); });
      }
    }
    if constexpr (kStage.passes || kStage.passes_row) {
      each(sites, passed,
           [&](const Site& site, V v) { v.store(arrays.passed.at(site.row, site.unit)); });
    }
  }

  template <class X>
  void zone_out(const Site* sites, const X* prev, X* next) const {
    for (int s = 0; s < kStates; ++s) {
      if (!sets(s)) continue;
      const Rows<const Real>& drawn = arrays.zoneout[s];
      if (drawn.data != nullptr) {  // 0 or 1
        const X stays = collect<X>(
            sites, [&](const Site& site) { return V::load(drawn.at(site.row, site.unit)); });
        next[s] = select(stays <= X::zero(), next[s], prev[s]);
      } else if (arrays.problem->noise.zoneout[s] != 0) {
        using Number = typename PlainOf<Real>::type;
        const V stays = V::set(static_cast<Number>(arrays.problem->noise.zoneout[s]));
        next[s] =
            cells::zoned(collect<X>(sites, [&](const Site&) { return stays; }), prev[s], next[s]);
      }
    }
  }

  // The states as they leave the step: to whom they are shown, and to the next step.
  template <class X>
  void leave(const Site* sites, const X* next) const {
    if constexpr (sets(0)) show(arrays.y, sites, next[0]);
    for (int s = 0; s < kStates && shows_states; ++s) {
      if (sets(s) && arrays.state_y[s].data != nullptr) show(arrays.state_y[s], sites, next[s]);
    }
    for (int s = 0; s < kStates; ++s) {
      if (!sets(s)) continue;
      each(sites, next[s], [&](const Site& site, V v) {
        if (is_cut(arrays.next_flags, site.row)) v = reset_state(s, site);
        v.store(arrays.next[s].at(site.row, site.unit));
      });
    }
  }

  template <class X>
  void show(const Rows<Real>& y, const Site* sites, X x) const {
    each(sites, x, [&](const Site& site, V v) {
      if (!is_shown(arrays.flags, site.row)) v = V::zero();
      Real* const dst = y.at(site.row, site.unit);
      if (site.left >= W) {
        v.store(dst);
      } else {
        v.store(dst, static_cast<int>(site.left));
      }
    });
  }

  V reset_state(int s, const Site& site) const {
    if (arrays.reset[s] == nullptr) return V::zero();
    const Real* const src = arrays.reset[s] + site.unit;
    return site.left >= W ? V::load(src) : V::load(src, static_cast<int>(site.left));
  }
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
