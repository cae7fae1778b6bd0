// One stage of one step, tile by tile: its product, where it has one, and the cell's equations on
// it while it is in the first-level cache. Products are compiled once a format, equations once a
// cell and format.
#pragma once

#include "cpu/kernels/forward_context.h"
#include "cpu/kernels/twin.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Where a step's arrays lie.
struct ForwardStep {
  int64_t time, entering, leaving, of_step;
  int64_t chunk_row;          // of the thread's first sequence
  const uint8_t* flags;       // of this step, or null
  const uint8_t* next_flags;  // of the next one, or null
  bool turned;                // whether it goes through its panels from the last to the first
  bool shows_states;          // whether a state is wanted of every step

  // `chunk_step`: its number in the chunk of steps that has been projected.
  template <class F>
  FUSEDRNN_MEMBER ForwardStep(const ForwardContext<F>& context, int64_t step, int64_t chunk_step)
      : time(context.slots.time(step)),
        entering(context.slots.entering(step)),
        leaving(context.slots.leaving(step)),
        of_step(context.slots.of_step(step)),
        chunk_row(chunk_step * context.share.rows.size()),
        flags(context.flags_at(step)),
        next_flags(context.flags_at(step + 1)),
        turned(turns(step)),
        shows_states(false) {
    for (const Sequence& y : context.call.state_y) shows_states |= y.data != nullptr;
  }
};

// A cell's equations of one stage over a tile, from the sums of its product, [panel][row][vectors].
template <class F>
using ForwardMap = void (*)(const ForwardContext<F>& context, const ForwardStep& step,
                            const Tile& tile, const typename F::Real* sums);

template <class F>
struct ForwardTiles {
  using Real = typename F::Real;

  const ForwardContext<F>& context;
  const ForwardStep& step;
  int index;  // of the stage
  Panels<F> weights;
  ForwardMap<F> map;

  void run(Tile tile) const {
    alignas(64) Real sums[kTileSums<F, kMostVectors>];
    if (context.shape.stages[index].operand != cells::Operand::none && any_valid(tile)) {
      multiply(tile, sums);
    }
    map(context, step, tile, sums);
  }

  FUSEDRNN_MEMBER void multiply(const Tile& tile, Real* sums) const {
    const StageShape& stage = context.shape.stages[index];
    const int vectors = stage_vectors(context.shape, stage);
    const int64_t numbers = vectors * F::V::width;
    const int64_t depth = extent(context.p, stage.product.depth);
    Product<F> product;
    product.depth = F::padded(depth);
    product.set_weights(weights.data, weights.first, panel_size<F>(depth, vectors), tile);
    product.set_columns(context.job.packed.stages[index], tile.panel, numbers);
    product.out = sums;
    product.out_row = numbers;
    product.out_panel = tile.rows * numbers;
    if constexpr (F::kQuantised) {
      const int64_t first = tile.first_row() - context.share.rows.begin;
      product.row_scale = context.quantised_scales + first;
      product.set_rows(context.quantised + first * context.job.ld_state, context.job.ld_state);
    } else {
      const int64_t slot = stage.operand == cells::Operand::h ? step.entering : step.of_step;
      product.set_rows(context.operand_row(index, slot, tile.first_row()), context.job.ld_state);
    }
    run_product(product, vectors, tile);
  }

  FUSEDRNN_MEMBER bool any_valid(const Tile& tile) const {
    if (step.flags == nullptr) return true;
    bool any = false;
    for (int64_t m = 0; m < tile.rows; ++m) any |= (step.flags[tile.row + m] & kValid) != 0;
    return any;
  }
};

template <class Cell, class F, int Index>
struct ForwardStage {
  using Real = typename F::Real;
  using V = typename F::V;
  using Saved = SavedOf<Cell, F>;
  static constexpr CellShape kCell = shape_of<Cell>();
  static constexpr StageShape kStage = kCell.stages[Index];
  // Gates and what is saved are of hidden units; a stage may walk the numbers of h instead.
  static constexpr bool kHidden = kStage.units == 'H';
  static constexpr int W = V::width, U = Cell::kUnitVectors * W;
  static constexpr int G = Cell::kGates, S = Cell::kSaved, kStates = cells::kStateCount<Cell>;
  static constexpr int kVectors = cells::kVectorCount<Cell>;
  static constexpr int kFirst = kStage.product.first, kGates = kStage.product.gates;
  static constexpr int N = stage_vectors(kCell, kStage);
  static_assert(has_product(N), "see run_product");

  const ForwardContext<F>& context;
  const ForwardStep& step;

  // Whether the stage walks the units of state `s`, and whether it is the one that sets it.
  static constexpr bool walks(int s) { return kCell.states[s].size == kStage.units; }
  static constexpr bool sets(int s) { return kCell.states[s].last_stage == Index && walks(s); }

  int64_t units() const { return extent(context.p, kStage.units); }

  FUSEDRNN_FLAT static void map(const ForwardContext<F>& context, const ForwardStep& step,
                                const Tile& tile, const Real* sums) {
    with_constants<Cell, Real>(context.p, [&](const auto& constants) {
      ForwardStage{context, step}.run(tile, sums, constants);
    });
  }

  template <class K>
  void run(const Tile& tile, const Real* sums, const K& constants) const {
    Site sites[2];
    int waiting = 0;
    const Real* sum = sums + tile.repeated * N * W;
    for (int64_t panel = tile.panel; panel < tile.panel + tile.panels; ++panel) {
      for (int64_t b = tile.row; b < tile.row + tile.rows; ++b, sum += N * W) {
        for (int j = 0; j < Cell::kUnitVectors && panel * U + j * W < units(); ++j) {
          sites[waiting] = site(sum, panel, j, b);
          if constexpr (K::kUsual) {
            if (step.flags == nullptr) {
              if (++waiting < 2) continue;
              finish_two(sites, constants);
              waiting = 0;
              continue;
            }
          }
          finish_one(sites[0], constants);
        }
      }
    }
    if (waiting == 1) finish_one(sites[0], constants);
  }

  // A vector of units of one sequence: what its gate maths reads and writes. Blocks are U apart.
  struct Site {
    const Real* u;        // the stage's product
    const Real* a;        // the input projection
    const Real* vectors;  // the vector parameters
    Saved* saved;         // null where nothing is kept
    int64_t b, unit;
  };

  Site site(const Real* sum, int64_t panel, int j, int64_t b) const {
    Site site{sum + j * W, nullptr, nullptr, nullptr, b, panel * U + j * W};
    if constexpr (kHidden) {
      const int64_t row = step.chunk_row + b - context.share.rows.begin;
      site.a = context.projection_at(panel, row, G * U) + j * W;
      site.vectors =
          static_cast<const Real*>(context.job.packed.vectors) + panel * kVectors * U + j * W;
      if (context.job.kept.saved != nullptr) {
        const int64_t panels = blocks_of(context.p.H, U);
        site.saved = static_cast<Saved*>(context.job.kept.saved) +
                     ((step.of_step * context.p.B + b) * panels + panel) * S * U + j * W;
      }
    }
    return site;
  }

  // Two sites of a step that every sequence has and nothing cuts.
  template <class K>
  void finish_two(const Site* sites, const K& constants) const {
    using X = Twin<V>;
    X prev[kStates], next[kStates];
    load_states(sites, prev);
    compute(sites, prev, next, constants);
    if constexpr (sets(0)) store_output(context.call.y, sites, next[0]);
    if (step.shows_states) show_states(sites, next);
    store_states(sites, next);
  }

  template <class K>
  void finish_one(const Site& site, const K& constants) const {
    const bool valid = is_valid(step.flags, site.b), cut_next = is_cut(step.next_flags, site.b);
    V prev[kStates], next[kStates];
    load_states(&site, prev);
    for (int s = 0; s < kStates; ++s) {
      if (walks(s)) next[s] = prev[s];
    }
    if (valid) compute(&site, prev, next, constants);
    const bool shown = is_shown(step.flags, site.b);
    if constexpr (sets(0)) {
      store_output(context.call.y, &site, shown ? next[0] : V::zero());
    }
    if (step.shows_states) {
      V seen[kStates];
      for (int s = 0; s < kStates; ++s) {
        if (sets(s)) seen[s] = shown ? next[s] : V::zero();
      }
      show_states(&site, seen);
    }
    for (int s = 0; s < kStates && cut_next; ++s) {
      if (sets(s)) next[s] = context.reset_state(s, site.unit, units());
    }
    store_states(&site, next);
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
    for (int s = 0; s < kStates; ++s) {
      if (!walks(s)) continue;
      prev[s] = collect<X>(sites, [&](const Site& site) {
        return context.load_state(s, step.entering, site.b, site.unit);
      });
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
    for (int g = 0; g < kGates; ++g) u[kFirst + g] = load(&Site::u, g);
    for (int g = 0; g < G && kHidden; ++g) a[g] = load(&Site::a, g);
    for (int k = 0; k < kVectors && kHidden; ++k) w[k] = load(&Site::vectors, k);
    for (int s = 0; s < S && kHidden && Index > 0; ++s) {
      saved[s] = collect<X>(sites, [&](const Site& site) { return V::load(site.saved + s * U); });
    }
    if constexpr (cells::kConstantCount<Cell> > 0) {
      Cell::template forward<Index>(a, u, w, prev, saved, next, &passed, constants);
    } else {
      Cell::template forward<Index>(a, u, w, prev, saved, next, &passed);
    }
    for (int s = 0; s < S && sites[0].saved != nullptr; ++s) {
      each(sites, saved[s], [&](const Site& site, V v) { v.store(site.saved + s * U); });
    }
    if constexpr (sets(0)) {
      next[0] = Bundle<X>::map(next[0], [](V h) { return F::round_state(h); });
    }
    if constexpr (kStage.passes) {
      each(sites, passed, [&](const Site& site, V v) {
        context.store_operand(context.passed_row(Index + 1, step.of_step, site.b), site.unit,
                              units(), F::round_operand(v));
      });
    }
  }

  // The states that are wanted of every step.
  template <class X>
  void show_states(const Site* sites, const X* next) const {
    for (int s = 0; s < kStates; ++s) {
      if (!sets(s) || context.call.state_y[s].data == nullptr) continue;
      store_output(context.call.state_y[s], sites, next[s]);
    }
  }

  template <class X>
  void store_output(const Sequence& y, const Site* sites, X x) const {
    using Edge = typename F::Edge;
    each(sites, x, [&](const Site& site, V v) {
      Edge* dst =
          static_cast<Edge*>(y.data) + step.time * y.t_stride + site.b * y.b_stride + site.unit;
      const int64_t left = units() - site.unit;
      if (left >= W) {
        v.store(dst);
      } else {
        v.store(dst, static_cast<int>(left));
      }
    });
  }

  template <class X>
  void store_states(const Site* sites, const X* next) const {
    for (int s = 0; s < kStates; ++s) {
      if (!sets(s)) continue;
      each(sites, next[s], [&](const Site& site, V v) {
        context.store_state(s, step.leaving, site.b, site.unit, v, kCell.h_stage, units());
      });
    }
  }
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
