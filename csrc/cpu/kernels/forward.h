// The forward pass of one thread: pack, then for each chunk of steps project the inputs and walk
// the steps. A thread computes all gates of its own units for its own sequences; only h is
// exchanged.
#pragma once

#include "cpu/kernels/pack.h"
#include "cpu/kernels/quantised.h"
#include "cpu/kernels/twin.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Time in the order of processing, and where the states that enter and leave a step lie.
//
// In training slot t (forward) or t+1 (reverse) holds the state that enters step t, already cut
// where a reset says so, and the slot on its other side the state that leaves it; so T+1 slots,
// each written once. In inference two slots take turns.
struct Slots {
  int64_t T;
  bool reverse, save;

  FUSEDRNN_MEMBER int64_t time(int64_t step) const { return reverse ? T - 1 - step : step; }
  FUSEDRNN_MEMBER int64_t entering(int64_t step) const {
    return save ? time(step) + reverse : step & 1;
  }
  // The slot after the last step is that which a further step would enter.
  FUSEDRNN_MEMBER int64_t leaving(int64_t step) const { return entering(step + 1); }
  // Buffers with one slot a step (gates, the inputs of later phases).
  FUSEDRNN_MEMBER int64_t of_step(int64_t step) const { return save ? time(step) : 0; }
};

template <class Cell, class F>
class Forward {
 public:
  Forward(const ForwardJob& job, int thread)
      : job_(job),
        call_(*job.call),
        p_(job.call->problem),
        slots_{p_.T, p_.reverse, job.save},
        thread_(thread),
        threads_(job.grid.row_groups * job.grid.unit_groups),
        group_(thread / job.grid.unit_groups),
        rows_(share(p_.B, job.grid.row_groups, group_)),
        panels_(share(job.panels, job.grid.unit_groups, thread % job.grid.unit_groups)),
        projection_(own(job.projection)),
        projection_rows_(job.chunk_steps * (rows_.end - rows_.begin)),
        staged_(own(job.staged)),
        quantised_(own(job.quantised)),
        staged_scales_(own(job.row_scales)),
        quantised_scales_(staged_scales_ + projection_rows_) {}

  void run() {
    if (!job_.packed) pack();
    enter_first_step();
    if (threads_ > 1) wait_at(*job_.grid.all);
    for (int64_t step = 0; step < p_.T; ++step) {
      if (step % job_.chunk_steps == 0) project(step);
      walk_phases<0>(step);
    }
    leave_last_step();
  }

  // The thread's share of packing the weights, for a call of its own or for later ones.
  void pack() {
    const Range own = share(job_.panels, threads_, thread_);
    pack_bias<F, kUnitVectors>(call_.b_ih, p_.H, G, own, to<Real>(job_.packed_bias_ih));
    pack_bias<F, kUnitVectors>(call_.b_hh, p_.H, G, own, to<Real>(job_.packed_bias_hh));
    if (job_.stream.data != nullptr) return;
    pack_panels<G>(call_.w_ih, p_.I, 0, own, job_.packed_input, job_.quantised_input);
    pack_recurrent<0>(own);
  }

 private:
  using Edge = typename F::Edge;
  using Real = typename F::Real;
  using Row = typename F::Row;
  using Panel = typename F::Panel;
  using V = typename F::V;
  using Dot = typename F::Dot;
  // Gates that a later phase of the same step reads stay exact.
  using Saved =
      typename Choose<(Cell::kPhases > 1 || F::kQuantised), Real, typename F::Saved>::type;
  static constexpr int W = V::width;
  static constexpr int kUnitVectors = Cell::kUnitVectors;
  static constexpr int U = kUnitVectors * W;
  static constexpr int G = Cell::kGates;
  static constexpr int S = Cell::kSaved;

  // Packed panels: `data` is that of panel `first`.
  struct Packed {
    const Panel* data;
    int64_t first;
  };

  template <int Phase>
  void pack_recurrent(Range own) {
    pack_panels<Cell::phase_gates(Phase)>(call_.w_hh, p_.H, Cell::phase_first(Phase), own,
                                          job_.packed_recurrent[Phase], job_.quantised_recurrent);
    if constexpr (Phase + 1 < Cell::kPhases) pack_recurrent<Phase + 1>(own);
  }

  // `packed`: where panel 0 goes.
  template <int Gates>
  void pack_panels(const Matrix& w, int64_t depth, int first_gate, Range panels, void* packed,
                   const Quantisation& quantised) const {
    if constexpr (F::kQuantised) {
      quantise_gates<F, kUnitVectors>(w, p_.H, depth, first_gate, Gates, panels, to<Panel>(packed),
                                      quantised.scale, quantised.start, G * U);
    } else {
      pack_gates<F, kUnitVectors>(
          w, p_.H, depth, first_gate, Gates, panels,
          to<Panel>(packed) + panels.begin * panel_size<F>(depth, Gates * kUnitVectors));
    }
  }

  // Calls run(panels, packed) for the thread's panels of a product. Weights that serve a single
  // step are packed a few panels at a time into a buffer that stays in the near cache.
  template <int Gates, class Run>
  FUSEDRNN_MEMBER void for_packed(const Matrix& w, int64_t depth, int first_gate,
                                  const void* packed, const Run& run) const {
    if (F::kQuantised || job_.stream.data == nullptr) {
      run(panels_, Packed{static_cast<const Panel*>(packed), 0});
      return;
    }
    if constexpr (!F::kQuantised) {
      constexpr int kGroup = tile_panels(1, Gates * kUnitVectors);
      Panel* buffer = own(job_.stream);
      for (int64_t begin = panels_.begin; begin < panels_.end; begin += kGroup) {
        const Range some{begin, panels_.end - begin < kGroup ? panels_.end : begin + kGroup};
        pack_gates<F, kUnitVectors>(w, p_.H, depth, first_gate, Gates, some, buffer);
        run(some, Packed{buffer, begin});
      }
    }
  }

  // --- the input projection of a chunk ---

  struct Projection {
    static constexpr int N = G * kUnitVectors;

    const Forward& f;
    Packed weights;
    int64_t first_step;

    void run(Tile tile) const {
      Product<F> product;
      product.depth = round_up(f.p_.I, Dot::kDepth);
      product.set_weights(weights.data, weights.first, panel_size<F>(f.p_.I, N), tile);
      product.bias_stride = N * W;
      product.bias = to<Real>(f.job_.packed_bias_ih) + tile.panel * product.bias_stride;
      product.out_row = N * W;
      product.out_panel = f.projection_rows_ * N * W;
      product.out = f.projection_at(tile.panel, tile.row);
      if constexpr (F::kQuantised) {
        product.scale = f.job_.quantised_input.scale + tile.panel * product.bias_stride;
        product.start = f.job_.quantised_input.start + tile.panel * product.bias_stride;
        product.row_scale = f.staged_scales_ + tile.row;
      }
      set_rows(tile, product);
      run_product<N>(product, tile.rows, tile.panels);
    }

    FUSEDRNN_MEMBER void set_rows(Tile tile, Product<F>& product) const {
      if constexpr (F::kStage) {
        product.set_rows(f.staged_ + tile.row * f.job_.ld_staged, f.job_.ld_staged);
      } else {
        const int64_t sequences = f.rows_.end - f.rows_.begin;
        int64_t step = first_step + tile.row / sequences;
        int64_t b = tile.row % sequences;
        for (int64_t m = 0; m < tile.rows; ++m) {
          product.rows[m] = f.x_row(step, b);
          if (++b == sequences) {
            b = 0;
            ++step;
          }
        }
      }
    }
  };

  void project(int64_t step) {
    const int64_t steps = p_.T - step < job_.chunk_steps ? p_.T - step : job_.chunk_steps;
    const int64_t rows = steps * (rows_.end - rows_.begin);
    if constexpr (F::kStage) stage(step, steps);
    for_packed<G>(call_.w_ih, p_.I, 0, job_.packed_input, [&](Range panels, Packed weights) {
      for_tiles<Projection::N>(Projection{*this, weights, step}, panels.begin, panels.end, 0, rows);
    });
  }

  FUSEDRNN_MEMBER const Edge* x_row(int64_t step, int64_t b) const {
    return static_cast<const Edge*>(call_.x.data) + slots_.time(step) * call_.x.t_stride +
           (rows_.begin + b) * call_.x.b_stride;
  }

  // The inputs of `steps` steps as the products read them, zero beyond I.
  void stage(int64_t step, int64_t steps) const {
    Row* dst = staged_;
    for (int64_t s = step; s < step + steps; ++s) {
      for (int64_t b = 0; b < rows_.end - rows_.begin; ++b, dst += job_.ld_staged) {
        const Edge* src = x_row(s, b);
        if constexpr (F::kQuantised) {
          staged_scales_[(dst - staged_) / job_.ld_staged] = quantise_row<F>(src, p_.I, dst);
        } else {
          for (int64_t i = 0; i < p_.I; i += W) {
            F::round_operand(load_columns<V>(src, i, p_.I)).store(dst + i);
          }
        }
      }
    }
  }

  FUSEDRNN_MEMBER Real* projection_at(int64_t panel, int64_t row) const {
    return projection_ + ((panel - panels_.begin) * projection_rows_ + row) * G * U;
  }

  // --- one phase of one step ---

  template <int Phase>
  struct Step {
    static constexpr int kFirst = Cell::phase_first(Phase);
    static constexpr int kGates = Cell::phase_gates(Phase);
    static constexpr bool kLast = Phase == Cell::kPhases - 1;
    static constexpr int N = kGates * kUnitVectors;

    const Forward& f;
    Packed weights;
    int64_t time, entering, leaving, of_step;
    int64_t chunk_row;        // of the thread's first sequence
    const uint8_t* flags;     // of this step, or null
    const uint8_t* next_cut;  // flags of the next step, or null

    void run(Tile tile) const {
      alignas(64) Real sums[kAccumulators * W];
      if (any_valid(tile)) multiply_state(tile, sums);
      Site sites[2];
      int waiting = 0;
      const Real* sum = sums;
      for (int64_t panel = tile.panel; panel < tile.panel + tile.panels; ++panel) {
        for (int64_t b = tile.row; b < tile.row + tile.rows; ++b, sum += N * W) {
          for (int j = 0; j < kUnitVectors && panel * U + j * W < f.p_.H; ++j) {
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
      product.depth = round_up(f.p_.H, Dot::kDepth);
      product.set_weights(weights.data, weights.first, panel_size<F>(f.p_.H, N), tile);
      product.bias_stride = G * U;
      product.bias = to<Real>(f.job_.packed_bias_hh) + tile.panel * G * U + kFirst * U;
      product.out = sums;
      product.out_row = N * W;
      product.out_panel = tile.rows * N * W;
      if constexpr (F::kQuantised) {
        const int64_t first = tile.row - f.rows_.begin;
        const int64_t at = tile.panel * G * U + kFirst * U;
        product.scale = f.job_.quantised_recurrent.scale + at;
        product.start = f.job_.quantised_recurrent.start + at;
        product.row_scale = f.quantised_scales_ + first;
        product.set_rows(f.quantised_ + first * f.job_.ld_state, f.job_.ld_state);
      } else {
        product.set_rows(f.input_row(Phase, Phase == 0 ? entering : of_step, tile.row),
                         f.job_.ld_state);
      }
      run_product<N>(product, tile.rows, tile.panels);
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
      return {sum + j * W, f.projection_at(panel, chunk_row + b - f.rows_.begin) + j * W,
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
          F::round_operand(v).store(f.passed_row(Phase + 1, of_step, sites[i].b) + sites[i].unit);
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

  template <int Phase>
  FUSEDRNN_MEMBER void walk_phases(int64_t step) {
    const int64_t time = slots_.time(step);
    const uint8_t* flags = call_.flags == nullptr ? nullptr : call_.flags + time * p_.B;
    const uint8_t* next =
        flags == nullptr || step + 1 == p_.T ? nullptr : call_.flags + slots_.time(step + 1) * p_.B;
    using Work = Step<Phase>;
    if constexpr (F::kQuantised) quantise_inputs<Phase>(step);
    const int64_t chunk_row = step % job_.chunk_steps * (rows_.end - rows_.begin);
    for_packed<Work::kGates>(
        call_.w_hh, p_.H, Work::kFirst, job_.packed_recurrent[Phase],
        [&](Range panels, Packed weights) {
          for_tiles<Work::N>(Work{*this, weights, time, slots_.entering(step), slots_.leaving(step),
                                  slots_.of_step(step), chunk_row, flags, next},
                             panels.begin, panels.end, rows_.begin, rows_.end, turns(step));
        });
    if (job_.grid.unit_groups > 1) wait_at(*job_.grid.group[group_]);
    if constexpr (Phase + 1 < Cell::kPhases) walk_phases<Phase + 1>(step);
  }

  // What the phase multiplies, quantised by each thread for itself.
  template <int Phase>
  void quantise_inputs(int64_t step) const {
    for (int64_t b = rows_.begin; b < rows_.end; ++b) {
      const int64_t row = b - rows_.begin;
      const Real* src =
          Phase == 0 ? h_row(slots_.entering(step), b) : passed_row(Phase, slots_.of_step(step), b);
      quantised_scales_[row] = quantise_row<F>(src, p_.H, quantised_ + row * job_.ld_state);
    }
  }

  // --- states before the first and after the last step ---

  // Units of the thread, for the work that has no panels.
  Range units() const {
    const int64_t end = panels_.end * U;
    return {panels_.begin * U, end < p_.H ? end : p_.H};
  }

  void enter_first_step() {
    const uint8_t* flags = call_.flags == nullptr ? nullptr : call_.flags + slots_.time(0) * p_.B;
    const int64_t slot = slots_.entering(0);
    for (int s = 0; s < Cell::kStates; ++s) {
      const Matrix& initial = call_.state_0[s];
      for (int64_t b = rows_.begin; b < rows_.end; ++b) {
        const bool zero = initial.data == nullptr || (flags != nullptr && (flags[b] & kCut) != 0);
        const Edge* src =
            zero ? nullptr : static_cast<const Edge*>(initial.data) + b * initial.stride;
        for (int64_t unit = panels_.begin * U; unit < panels_.end * U; unit += W) {
          const V value = load_columns<V>(src, unit, p_.H);
          if (s == 0) {
            store_h(slot, b, unit, value);
          } else {
            value.store(state_row(s, slot, b) + unit);
          }
        }
      }
    }
  }

  void leave_last_step() {
    const int64_t slot = slots_.entering(p_.T);
    for (int s = 0; s < Cell::kStates; ++s) {
      const Matrix& last = call_.state_n[s];
      if (last.data == nullptr) continue;
      for (int64_t b = rows_.begin; b < rows_.end; ++b) {
        Edge* dst = static_cast<Edge*>(last.data) + b * last.stride;
        const Range own = units();
        for (int64_t unit = own.begin; unit < own.end; unit += W) {
          const int64_t n = own.end - unit < W ? own.end - unit : W;
          const V value =
              s == 0 ? V::load(h_row(slot, b) + unit) : V::load(state_row(s, slot, b) + unit);
          value.store(dst + unit, static_cast<int>(n));
        }
      }
    }
  }

  // --- addresses ---

  template <class Number>
  static FUSEDRNN_MEMBER Number* to(void* p) {
    return static_cast<Number*>(p);
  }
  // The thread's part of a buffer that all threads share out.
  struct Own {
    void* p;
    template <class Number>
    FUSEDRNN_MEMBER operator Number*() const {
      return static_cast<Number*>(p);
    }
  };
  FUSEDRNN_MEMBER Own own(const PerThread& buffer) const {
    return {static_cast<char*>(buffer.data) + thread_ * buffer.bytes};
  }
  FUSEDRNN_MEMBER int64_t state_offset(int64_t slot, int64_t b) const {
    return (slot * p_.B + b) * job_.ld_state;
  }
  FUSEDRNN_MEMBER Row* input_row(int phase, int64_t slot, int64_t b) const {
    return to<Row>(job_.inputs[phase]) + state_offset(slot, b);
  }
  FUSEDRNN_MEMBER typename F::Passed* passed_row(int phase, int64_t slot, int64_t b) const {
    return to<typename F::Passed>(job_.inputs[phase]) + state_offset(slot, b);
  }
  FUSEDRNN_MEMBER typename F::State* h_row(int64_t slot, int64_t b) const {
    return to<typename F::State>(job_.states[0]) + state_offset(slot, b);
  }
  FUSEDRNN_MEMBER Real* state_row(int s, int64_t slot, int64_t b) const {
    return to<Real>(job_.states[s]) + state_offset(slot, b);
  }
  FUSEDRNN_MEMBER Saved* saved_at(int64_t slot, int64_t b, int64_t panel) const {
    if (job_.saved == nullptr) return nullptr;
    return to<Saved>(job_.saved) + ((slot * p_.B + b) * job_.panels + panel) * S * U;
  }
  FUSEDRNN_MEMBER void store_h(int64_t slot, int64_t b, int64_t unit, V h) const {
    h.store(h_row(slot, b) + unit);
    if constexpr (F::kMixed && !F::kQuantised)
      F::round_operand(h).store(input_row(0, slot, b) + unit);
  }
  FUSEDRNN_MEMBER void store_y(int64_t time, int64_t b, int64_t unit, V h) const {
    Edge* dst = to<Edge>(call_.y.data) + time * call_.y.t_stride + b * call_.y.b_stride + unit;
    if (p_.H - unit >= W) {
      h.store(dst);
    } else {
      h.store(dst, static_cast<int>(p_.H - unit));
    }
  }

  const ForwardJob& job_;
  const ForwardCall& call_;
  const Problem& p_;
  const Slots slots_;
  const int thread_, threads_, group_;
  const Range rows_;    // sequences of this thread
  const Range panels_;  // of units of this thread
  Real* const projection_;
  const int64_t projection_rows_;
  Row* const staged_;
  Row* const quantised_;
  float* const staged_scales_;
  float* const quantised_scales_;
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
