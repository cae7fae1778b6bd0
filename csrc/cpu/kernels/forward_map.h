// A cell's equations of one stage, forward, over a tile.
#pragma once

#include "cpu/kernels/map_support.h"
#include "cpu/kernels/twin.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// The states of a set as they leave the step, in a tile where it is more than a map has left in
// `next`: steps that do not exist, to whom states are shown, vectors that are cut off and
// states that the next step resets. No cell has a say in it, so it is compiled once.
template <class Real>
FUSEDRNN_ONCE static void leave(const ForwardArrays<Real>& arrays, const Tile& tile,
                                int64_t panel_units, int64_t units, unsigned states) {
  using V = Vec<Real>;
  const int64_t begin = tile.panel * panel_units - arrays.unit;
  const int64_t padded = begin + tile.panels * panel_units, held = units - arrays.unit;
  const int64_t end = padded < held ? padded : held;
  const auto show = [](Real* y, V v, int64_t left) FUSEDRNN_LAMBDA {
    if (left >= V::width) {
      v.store(y);
    } else {
      v.store(y, static_cast<int>(left));
    }
  };
  for (int s = 0; s < kMaxStates; ++s) {
    if ((states >> s & 1) == 0) continue;
    const Rows<Real> y = s == 0 ? arrays.y : Rows<Real>{}, state_y = arrays.state_y[s];
    for (int64_t row = tile.row; row < tile.row + tile.rows; ++row) {
      const bool valid = is_valid(arrays.flags, row), shown = is_shown(arrays.flags, row);
      const bool cut = is_cut(arrays.next_flags, row);
      const Real* const reset = arrays.reset[s];
      for (int64_t unit = begin; unit < end; unit += V::width) {
        const int64_t left = held - unit;
        Real* const next = arrays.next[s].at(row, unit);
        V v = V::load(valid ? next : arrays.prev[s].at(row, unit));
        const V shows = shown ? v : V::zero();
        if (y.data != nullptr) show(y.at(row, unit), shows, left);
        if (state_y.data != nullptr) show(state_y.at(row, unit), shows, left);
        if (cut) {
          v = reset == nullptr   ? V::zero()
              : left >= V::width ? V::load(reset + unit)
                                 : V::load(reset + unit, static_cast<int>(left));
        }
        v.store(next);
      }
    }
  }
}

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
  // Whether all vectors of the tile are whole, and y and the next step all that sees the states,
  // as they are: one question for a site instead of one for each flag and state.
  const bool plain;
  const bool zones;  // whether states may stay as they were

  // Whether the stage walks the units of state `s`, and whether it is the one that sets it.
  static constexpr bool walks(int s) { return kCell.states[s].size == kStage.units; }
  static constexpr bool sets(int s) { return kCell.states[s].last_stage == Index && walks(s); }
  static constexpr unsigned kLeaving = [] {
    unsigned states = 0;
    for (int s = 0; s < kStates; ++s) states |= sets(s) ? 1u << s : 0u;
    return states;
  }();

  // Where vectors are saved, normalised inputs come from there: normalise_inputs() has left them.
  static constexpr int kNormedInputs = kCell.normed_inputs;
  static constexpr bool saves(int s) {
    if (kNormedInputs >= 0 && s >= kNormedInputs && s < kNormedInputs + G) return false;
    if constexpr (cells::kNormCount<Cell> > 0) return Cell::saved_stage(s) == Index;
    return true;
  }

  FUSEDRNN_FLAT static void map(const ForwardArrays<Real>& arrays, const Tile& tile,
                                const Real* sums) {
    const int64_t units = extent(*arrays.problem, kStage.units);
    bool plain = (tile.panel + tile.panels) * U <= units &&
                 all_are(arrays.flags, tile, kValid | kShown, kValid | kShown) &&
                 all_are(arrays.next_flags, tile, kCut, 0);
    for (int s = 0; s < kStates; ++s) plain &= arrays.state_y[s].data == nullptr;
    const ForwardStage stage{arrays, units, plain, zones_out(*arrays.problem)};
    with_constants<Cell, Real, kHidden>(
        *arrays.problem, [&](const auto& constants) { stage.run(tile, sums, constants); });
    if (kLeaving != 0 && !plain) leave(arrays, tile, U, units, kLeaving);
  }

  // Sites that a step computes, as many at once as their gate maths is compiled for; one that is
  // left goes through it as two.
  template <class K>
  void run(const Tile& tile, const Real* sum, const K& constants) const {
    using X = typename OneOrTwo<V, K::kUsual && kTwins>::type;
    Site sites[Bundle<X>::count];
    Site* const end = sites + Bundle<X>::count;
    const int64_t end_panel = tile.panel + tile.panels, end_row = tile.row + tile.rows;
    int64_t panel = tile.panel;
    Site next = first_site(sum, panel, tile.row);
    int j = 0;
    while (panel < end_panel) {
      Site* found = sites;
      do {
        // A copy of `site` would be read while it is on its way to memory.
        const int64_t row = next.row, unit = next.unit;
        Site& site = *found;
        site = next;
        if (++j < Cell::kUnitVectors) {
          next.move(W, W, W);
        } else {
          j = 0;
          constexpr int kBack = (Cell::kUnitVectors - 1) * W;
          next.move(N * W - kBack, arrays.projection_row - kBack, arrays.saved.stride - kBack);
          next.unit -= Cell::kUnitVectors * W;
          if (++next.row == end_row) next = first_site(next.u, ++panel, tile.row);
        }
        if (plain || (left(unit) > 0 && is_valid(arrays.flags, row))) ++found;
      } while (found != end && panel < end_panel);
      if (found == sites) break;
      finish<X>(Sites{sites, found == end ? end - 1 : sites}, constants);
    }
  }

  // A vector of units of one sequence: what its gate maths reads and writes. Blocks are U apart.
  struct Site {
    const Real* u;      // the stage's product
    const Real* a;      // the input projection
    int64_t saved;      // from where the arrays have it
    int64_t row, unit;  // from the arrays' first unit

    // To the next vector of units, by so many numbers of each.
    void move(int64_t of_u, int64_t of_a, int64_t of_saved) {
      u += of_u;
      unit += W;
      if constexpr (kHidden) a += of_a;
      saved += of_saved;
    }
  };

  // One or two of them. One that is left is both: a copy would wait for memory as well.
  struct Sites {
    const Site* first;
    const Site* last;

    const Site& operator[](int i) const { return i == 0 ? *first : *last; }
  };

  // That of a panel's first vector.
  Site first_site(const Real* sum, int64_t panel, int64_t row) const {
    Site site{sum, nullptr, 0, row, panel * U - arrays.unit};
    if constexpr (kHidden) {
      const int64_t block = site.unit / U;
      site.a = arrays.projection + block * arrays.projection_panel + row * arrays.projection_row;
      site.saved = block * S * U + row * arrays.saved.stride;
    }
    return site;
  }
  // Units from this one on.
  int64_t left(int64_t unit) const { return units - arrays.unit - unit; }

  Real* saved_at(const Site& site, int block) const {
    return arrays.saved.data + site.saved + block * U;
  }

  template <class X, class K>
  void finish(const Sites& sites, const K& constants) const {
    X prev[kStates], next[kStates];
    load_states(sites, prev);
    compute(sites, prev, next, constants);
    if (zones) zone_out(sites, next);
    if (sets(0) && plain && arrays.y.data != nullptr) put(arrays.y, sites, next[0]);
    for (int s = 0; s < kStates; ++s) {
      if (sets(s)) put(arrays.next[s], sites, next[s]);
    }
  }

  // What get(site) returns for one or two sites.
  template <class X, class Get>
  static X collect(const Sites& sites, const Get& get) {
    return Bundle<X>::collect([&](int i) { return get(sites[i]); });
  }
  template <class X, class Put>
  static void each(const Sites& sites, X x, const Put& put) {
    Bundle<X>::each(x, [&](int i, V v) { put(sites[i], v); });
  }

  // Whole vectors.
  template <class X, class Number>
  static X get(const Rows<Number>& rows, const Sites& sites) {
    return collect<X>(sites,
                      [&](const Site& site) { return V::load(rows.at(site.row, site.unit)); });
  }
  template <class X>
  static void put(const Rows<Real>& rows, const Sites& sites, X x) {
    each(sites, x, [&](const Site& site, V v) { v.store(rows.at(site.row, site.unit)); });
  }

  template <class X>
  void load_states(const Sites& sites, X* prev) const {
    FUSEDRNN_UNROLL
    for (int s = 0; s < kStates; ++s) {
      if (walks(s)) prev[s] = get<X>(arrays.prev[s], sites);
    }
  }

  // The stage's equations; its gates and the next stage's operand are stored.
  template <class X, class K>
  void compute(const Sites& sites, const X* prev, X* next,
               [[maybe_unused]] const K& constants) const {
    // What a stage does not use is not loaded.
    X a[G], u[G], w[kVectors + 1], saved[S]{}, passed = X::zero();
    FUSEDRNN_UNROLL
    for (int g = 0; g < kGates; ++g) {
      u[kFirst + g] = collect<X>(sites, [&](const Site& site) { return V::load(site.u + g * U); });
    }
    if constexpr (kStage.reads_row) u[0] = get<X>(arrays.passed, sites);
    FUSEDRNN_UNROLL
    for (int g = 0; g < G && kHidden; ++g) {
      a[g] = collect<X>(sites, [&](const Site& site) {
        const bool normed = kNormedInputs >= 0 && arrays.saved.data != nullptr;
        return V::load(normed ? saved_at(site, kNormedInputs + g) : site.a + g * U);
      });
    }
    FUSEDRNN_UNROLL
    for (int k = 0; k < kVectors && kHidden; ++k) {
      w[k] = collect<X>(sites, [&](const Site& site) {
        const int64_t j = site.unit % U;  // of the panel's vectors, which lie block after block
        return V::load(arrays.vectors + (site.unit - j) * kVectors + k * U + j);
      });
    }
    FUSEDRNN_UNROLL
    for (int s = 0; s < S && kHidden && Index > 0; ++s) {
      saved[s] = collect<X>(sites, [&](const Site& site) { return V::load(saved_at(site, s)); });
    }
    if constexpr (cells::masks_candidate<Cell>()) {
      cells::Masked<K, X> masked{constants, arrays.candidate.data != nullptr, X::set(1)};
      if (masked.masks) masked.candidate = get<X>(arrays.candidate, sites);
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
    if (arrays.saved.data != nullptr) {
      FUSEDRNN_UNROLL
      for (int s = 0; s < S; ++s) {
        if (!saves(s)) continue;
        each(sites, saved[s], [&](const Site& site, V v) { v.store(saved_at(site, s)); });
      }
    }
    if constexpr (kStage.passes || kStage.passes_row) put(arrays.passed, sites, passed);
  }

  template <class X>
  void zone_out(const Sites& sites, X* next) const {
    for (int s = 0; s < kStates; ++s) {
      if (!sets(s)) continue;
      const Rows<const Real>& drawn = arrays.zoneout[s];
      if (drawn.data != nullptr) {  // 0 or 1
        const X stays = get<X>(drawn, sites);
        next[s] = select(stays <= X::zero(), next[s], get<X>(arrays.prev[s], sites));
      } else if (arrays.problem->noise.zoneout[s] != 0) {
        using Number = typename PlainOf<Real>::type;
        const V number = V::set(static_cast<Number>(arrays.problem->noise.zoneout[s]));
        const X stays = collect<X>(sites, [&](const Site&) { return number; });
        next[s] = cells::zoned(stays, get<X>(arrays.prev[s], sites), next[s]);
      }
    }
  }
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
