// One phase of one step, tile by tile: the product of the entering state with the recurrent
// weights, and the cell's equations on it while it is in the first-level cache.
#pragma once

#include "cpu/kernels/forward_context.h"
#include "cpu/kernels/twin.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class Cell, class F, int Phase>
struct Step {
  using Context = ForwardContext<Cell, F>;
  using Real = typename F::Real;
  using V = typename F::V;
  using Saved = typename Context::Saved;
  static constexpr int W = Context::W, U = Context::U, G = Context::G, S = Context::S;
  static constexpr int kUnitVectors = Context::kUnitVectors;
  static constexpr int kFirst = Cell::phase_first(Phase);
  static constexpr int kGates = Cell::phase_gates(Phase);
  static constexpr bool kLast = Phase == Cell::kPhases - 1;
  static constexpr int N = kGates * kUnitVectors;

  const Context& f;
  typename Context::Packed weights;
  int64_t time, entering, leaving, of_step;
  int64_t chunk_row;        // of the thread's first sequence
  const uint8_t* flags;     // of this step, or null
  const uint8_t* next_cut;  // flags of the next step, or null

  void run(Tile tile) const {
    alignas(64) Real sums[kTileSums<F, N>];
    if (any_valid(tile)) multiply_state(tile, sums);
    Site sites[2];
    int waiting = 0;
    const Real* sum = sums + tile.repeated * N * W;
    for (int64_t panel = tile.panel; panel < tile.panel + tile.panels; ++panel) {
      for (int64_t b = tile.row; b < tile.row + tile.rows; ++b, sum += N * W) {
        for (int j = 0; j < kUnitVectors && panel * U + j * W < f.p.H; ++j) {
          sites[waiting] = site(sum, panel, j, b);
          if (flags != nullptr) {
            finish_flagged(sites[0]);
          } else if (++waiting == 2) {
            finish<Twin<V>>(sites);
            waiting = 0;
          }
        }
      }
    }
    if (waiting == 1) finish<V>(sites);
  }

  FUSEDRNN_MEMBER void multiply_state(Tile tile, Real* sums) const {
    Product<F> product;
    product.depth = F::padded(f.p.H);
    product.set_weights(weights.data, weights.first, panel_size<F>(f.p.H, N), tile);
    product.bias_stride = G * U;
    product.bias =
        Context::template to<Real>(f.job.packed_bias_hh) + tile.panel * G * U + kFirst * U;
    product.out = sums;
    product.out_row = N * W;
    product.out_panel = tile.rows * N * W;
    if constexpr (F::kQuantised) {
      const int64_t first = tile.first_row() - f.rows.begin;
      const int64_t at = tile.panel * G * U + kFirst * U;
      product.scale = f.job.quantised_recurrent.scale + at;
      product.start = f.job.quantised_recurrent.start + at;
      product.row_scale = f.quantised_scales + first;
      product.set_rows(f.quantised + first * f.job.ld_state, f.job.ld_state);
    } else {
      product.set_rows(f.input_row(Phase, Phase == 0 ? entering : of_step, tile.first_row()),
                       f.job.ld_state);
    }
    run_product<N>(product, tile);
  }

  FUSEDRNN_MEMBER bool any_valid(Tile tile) const {
    if (flags == nullptr) return true;
    bool any = false;
    for (int64_t m = 0; m < tile.rows; ++m) any |= (flags[tile.row + m] & kValid) != 0;
    return any;
  }

  // A vector of units of one sequence: what its gate maths reads and writes.
  struct Site {
    const Real* u;  // the recurrent product, gates U apart
    const Real* a;  // the input projection, gates U apart
    Saved* saved;   // U apart; null where nothing is kept
    int64_t b, unit;
  };

  FUSEDRNN_MEMBER Site site(const Real* sum, int64_t panel, int j, int64_t b) const {
    Saved* saved = f.saved_at(of_step, b, panel);
    return {sum + j * W, f.projection_at(panel, chunk_row + b - f.rows.begin) + j * W,
            saved == nullptr ? nullptr : saved + j * W, b, panel * U + j * W};
  }

  // The cell's equations at one site (X = V) or at two (X = Twin<V>), where every step is valid
  // and none is cut.
  template <class X>
  FUSEDRNN_MEMBER void finish(const Site* sites) const {
    X prev[Cell::kStates], next[Cell::kStates];
    load_states(sites, prev);
    compute(sites, prev, next);
    if constexpr (kLast) {
      store_output(sites, next[0]);
      store_states(sites, next);
    }
  }

  void finish_flagged(const Site& site) const {
    const bool valid = (flags[site.b] & kValid) != 0;
    const bool cut_next = next_cut != nullptr && (next_cut[site.b] & kCut) != 0;
    V prev[Cell::kStates], next[Cell::kStates];
    load_states(&site, prev);
    for (int s = 0; s < Cell::kStates; ++s) next[s] = prev[s];
    if (valid) compute(&site, prev, next);
    if constexpr (kLast) {
      store_output(&site, valid ? next[0] : V::zero());
      for (int s = 0; s < Cell::kStates && cut_next; ++s) next[s] = V::zero();
      store_states(&site, next);
    }
  }

  template <class X>
  FUSEDRNN_MEMBER void load_states(const Site* sites, X* prev) const {
    prev[0] = Bundle<X>::collect([&](int i) FUSEDRNN_LAMBDA {
      return V::load(f.h_row(entering, sites[i].b) + sites[i].unit);
    });
    for (int s = 1; s < Cell::kStates; ++s) {
      prev[s] = Bundle<X>::collect([&](int i) FUSEDRNN_LAMBDA {
        return V::load(f.state_row(s, entering, sites[i].b) + sites[i].unit);
      });
    }
  }

  // The phase's equations; its gates and the next phase's input are stored.
  template <class X>
  FUSEDRNN_MEMBER void compute(const Site* sites, const X* prev, X* next) const {
    X saved[S]{}, a[G], u[G], input = X::zero();
    for (int g = 0; g < kGates; ++g) {
      a[kFirst + g] = Bundle<X>::collect(
          [&](int i) FUSEDRNN_LAMBDA { return V::load(sites[i].a + (kFirst + g) * U); });
      u[kFirst + g] =
          Bundle<X>::collect([&](int i) FUSEDRNN_LAMBDA { return V::load(sites[i].u + g * U); });
    }
    if constexpr (Phase > 0) {
      for (int s = 0; s < S; ++s) {
        saved[s] = Bundle<X>::collect(
            [&](int i) FUSEDRNN_LAMBDA { return V::load(sites[i].saved + s * U); });
      }
    }
    Cell::template forward<Phase>(a, u, prev, saved, next, &input);
    if (sites[0].saved != nullptr) {
      for (int s = 0; s < S; ++s) {
        Bundle<X>::each(saved[s],
                        [&](int i, V v) FUSEDRNN_LAMBDA { v.store(sites[i].saved + s * U); });
      }
    }
    if constexpr (kLast) {
      next[0] = Bundle<X>::map(next[0], [](V h) FUSEDRNN_LAMBDA { return F::round_state(h); });
    } else {
      Bundle<X>::each(input, [&](int i, V v) FUSEDRNN_LAMBDA {
        f.store_operand(f.passed_row(Phase + 1, of_step, sites[i].b), sites[i].unit,
                        F::round_operand(v));
      });
    }
  }

  template <class X>
  FUSEDRNN_MEMBER void store_output(const Site* sites, X h) const {
    Bundle<X>::each(
        h, [&](int i, V v) FUSEDRNN_LAMBDA { f.store_y(time, sites[i].b, sites[i].unit, v); });
  }

  template <class X>
  FUSEDRNN_MEMBER void store_states(const Site* sites, const X* next) const {
    Bundle<X>::each(next[0], [&](int i, V v) FUSEDRNN_LAMBDA {
      f.store_h(leaving, sites[i].b, sites[i].unit, v);
    });
    for (int s = 1; s < Cell::kStates; ++s) {
      Bundle<X>::each(next[s], [&](int i, V v) FUSEDRNN_LAMBDA {
        v.store(f.state_row(s, leaving, sites[i].b) + sites[i].unit);
      });
    }
  }
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
