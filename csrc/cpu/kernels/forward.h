// The forward pass of one thread: pack, then for each chunk of steps project the inputs and walk
// the steps. A thread computes all gates of its own units for its own sequences; only h is
// exchanged.
#pragma once

#include "cpu/kernels/projection.h"
#include "cpu/kernels/step.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class Cell, class F>
class Forward {
 public:
  Forward(const ForwardJob& job, int thread) : f_(job, thread) {}

  void run() {
    if (!f_.job.packed) pack();
    enter_first_step();
    if (f_.threads > 1) wait_at(*f_.job.grid.all);
    if (f_.job.packed && f_.p.T == 1 && Cell::kPhases == 1) {
      take_single_step();
    } else {
      for (int64_t step = 0; step < f_.p.T; ++step) {
        if (step % f_.job.chunk_steps == 0) project(step);
        walk_phases<0>(step);
      }
    }
    leave_last_step();
  }

  // The thread's share of packing the weights, for a call of its own or for later ones.
  void pack() {
    const Range own = share(f_.job.panels, f_.threads, f_.thread);
    pack_bias<F, kUnitVectors>(f_.call.b_ih, f_.p.H, G, own,
                               Context::template to<Real>(f_.job.packed_bias_ih));
    pack_bias<F, kUnitVectors>(f_.call.b_hh, f_.p.H, G, own,
                               Context::template to<Real>(f_.job.packed_bias_hh));
    if (f_.job.stream.data != nullptr) return;
    pack_panels<G>(f_.call.w_ih, f_.p.I, 0, own, f_.job.packed_input, f_.job.quantised_input);
    pack_recurrent<0>(own);
  }

 private:
  using Context = ForwardContext<Cell, F>;
  using Packed = typename Context::Packed;
  using Edge = typename F::Edge;
  using Real = typename F::Real;
  using Panel = typename F::Panel;
  using V = typename F::V;
  static constexpr int W = Context::W, U = Context::U, G = Context::G;
  static constexpr int kUnitVectors = Context::kUnitVectors;

  template <int Phase>
  void pack_recurrent(Range own) {
    pack_panels<Cell::phase_gates(Phase)>(f_.call.w_hh, f_.p.H, Cell::phase_first(Phase), own,
                                          f_.job.packed_recurrent[Phase],
                                          f_.job.quantised_recurrent);
    if constexpr (Phase + 1 < Cell::kPhases) pack_recurrent<Phase + 1>(own);
  }

  // `packed`: where panel 0 goes.
  template <int Gates>
  void pack_panels(const Matrix& w, int64_t depth, int first_gate, Range panels, void* packed,
                   const Quantisation& quantised) const {
    if constexpr (F::kQuantised) {
      quantise_gates<F, kUnitVectors>(w, f_.p.H, depth, first_gate, Gates, panels,
                                      Context::template to<Panel>(packed), quantised.scale,
                                      quantised.start, G * U);
    } else {
      pack_gates<F, kUnitVectors>(w, f_.p.H, depth, first_gate, Gates, panels,
                                  Context::template to<Panel>(packed) +
                                      panels.begin * panel_size<F>(depth, Gates * kUnitVectors));
    }
  }

  // Calls run(panels, packed) for the thread's panels of a product. Weights that serve a single
  // step are packed a few panels at a time into a buffer that stays in the near cache.
  template <int Gates, class Run>
  FUSEDRNN_MEMBER void for_packed(const Matrix& w, int64_t depth, int first_gate,
                                  const void* packed, const Run& run) const {
    if (F::kQuantised || f_.job.stream.data == nullptr) {
      run(f_.panels, Packed{static_cast<const Panel*>(packed), 0});
      return;
    }
    if constexpr (!F::kQuantised) {
      constexpr int kGroup = tile_panels(1, Gates * kUnitVectors);
      Panel* buffer = f_.own(f_.job.stream);
      for (int64_t begin = f_.panels.begin; begin < f_.panels.end; begin += kGroup) {
        const Range some{begin, f_.panels.end - begin < kGroup ? f_.panels.end : begin + kGroup};
        pack_gates<F, kUnitVectors>(w, f_.p.H, depth, first_gate, Gates, some, buffer);
        run(some, Packed{buffer, begin});
      }
    }
  }

  // --- the input projection of a chunk ---

  void project(int64_t step) {
    const int64_t steps = f_.p.T - step < f_.job.chunk_steps ? f_.p.T - step : f_.job.chunk_steps;
    const int64_t rows = steps * (f_.rows.end - f_.rows.begin);
    if constexpr (F::kStage) stage(f_, step, steps);
    for_packed<G>(f_.call.w_ih, f_.p.I, 0, f_.job.packed_input, [&](Range panels, Packed weights) {
      project_panels(step, rows, panels, weights);
    });
  }

  FUSEDRNN_MEMBER void project_panels(int64_t step, int64_t rows, Range panels, Packed weights) {
    for_products<F, Projection<Cell, F>::N>(registers_, f_.p.B,
                                            Projection<Cell, F>{f_, weights, step}, panels.begin,
                                            panels.end, 0, rows);
  }

  template <int Phase>
  FUSEDRNN_MEMBER void walk_phases(int64_t step) {
    using Work = Step<Cell, F, Phase>;
    if constexpr (F::kQuantised) quantise_inputs<Phase>(step);
    for_packed<Work::kGates>(
        f_.call.w_hh, f_.p.H, Work::kFirst, f_.job.packed_recurrent[Phase],
        [&](Range panels, Packed weights) { walk_panels<Phase>(step, panels, weights); });
    if (f_.job.grid.unit_groups > 1) wait_at(*f_.job.grid.group[f_.group]);
    if constexpr (Phase + 1 < Cell::kPhases) walk_phases<Phase + 1>(step);
  }

  template <int Phase>
  FUSEDRNN_MEMBER void walk_panels(int64_t step, Range panels, Packed weights) {
    const int64_t time = f_.slots.time(step);
    const uint8_t* flags = f_.call.flags == nullptr ? nullptr : f_.call.flags + time * f_.p.B;
    const uint8_t* next = flags == nullptr || step + 1 == f_.p.T
                              ? nullptr
                              : f_.call.flags + f_.slots.time(step + 1) * f_.p.B;
    const int64_t chunk_row = step % f_.job.chunk_steps * (f_.rows.end - f_.rows.begin);
    using Work = Step<Cell, F, Phase>;
    for_products<F, Work::N>(
        registers_, f_.p.B,
        Work{f_, weights, time, f_.slots.entering(step), f_.slots.leaving(step),
             f_.slots.of_step(step), chunk_row, flags, next},
        panels.begin, panels.end, f_.rows.begin, f_.rows.end, turns(step));
  }

  // One step with weights that stay packed: both products of a few panels, then those of the next
  // ones; calls in turn go up and down, so that what a cache kept of the last call serves this one.
  void take_single_step() {
    if constexpr (F::kStage) stage(f_, 0, 1);
    if constexpr (F::kQuantised) quantise_inputs<0>(0);
    constexpr int64_t kGroup = tile_panels(1, G * kUnitVectors);
    const int64_t panels = f_.panels.end - f_.panels.begin;
    const int64_t groups = (panels + kGroup - 1) / kGroup;
    for (int64_t i = 0; i < groups; ++i) {
      const int64_t begin = f_.panels.begin + (f_.job.turned ? groups - 1 - i : i) * kGroup;
      const int64_t end = begin + kGroup < f_.panels.end ? begin + kGroup : f_.panels.end;
      project_panels(0, f_.rows.end - f_.rows.begin, {begin, end},
                     {static_cast<const Panel*>(f_.job.packed_input), 0});
      walk_panels<0>(0, {begin, end}, {static_cast<const Panel*>(f_.job.packed_recurrent[0]), 0});
    }
  }

  // What the phase multiplies, quantised by each thread for itself.
  template <int Phase>
  void quantise_inputs(int64_t step) const {
    for (int64_t b = f_.rows.begin; b < f_.rows.end; ++b) {
      const int64_t row = b - f_.rows.begin;
      const Real* src = Phase == 0 ? f_.h_row(f_.slots.entering(step), b)
                                   : f_.passed_row(Phase, f_.slots.of_step(step), b);
      f_.quantised_scales[row] = quantise_row<F>(src, f_.p.H, f_.quantised + row * f_.job.ld_state);
    }
  }

  // --- states before the first and after the last step ---

  // Units of the thread, for the work that has no panels.
  Range units() const {
    const int64_t end = f_.panels.end * U;
    return {f_.panels.begin * U, end < f_.p.H ? end : f_.p.H};
  }

  void enter_first_step() {
    const uint8_t* flags =
        f_.call.flags == nullptr ? nullptr : f_.call.flags + f_.slots.time(0) * f_.p.B;
    const int64_t slot = f_.slots.entering(0);
    for (int s = 0; s < Cell::kStates; ++s) {
      const Matrix& initial = f_.call.state_0[s];
      for (int64_t b = f_.rows.begin; b < f_.rows.end; ++b) {
        const bool zero = initial.data == nullptr || (flags != nullptr && (flags[b] & kCut) != 0);
        const Edge* src =
            zero ? nullptr : static_cast<const Edge*>(initial.data) + b * initial.stride;
        for (int64_t unit = f_.panels.begin * U; unit < f_.panels.end * U; unit += W) {
          const V value = load_columns<V>(src, unit, f_.p.H);
          if (s == 0) {
            f_.store_h(slot, b, unit, value);
          } else {
            value.store(f_.state_row(s, slot, b) + unit);
          }
        }
      }
    }
  }

  void leave_last_step() {
    const int64_t slot = f_.slots.entering(f_.p.T);
    for (int s = 0; s < Cell::kStates; ++s) {
      const Matrix& last = f_.call.state_n[s];
      if (last.data == nullptr) continue;
      for (int64_t b = f_.rows.begin; b < f_.rows.end; ++b) {
        Edge* dst = static_cast<Edge*>(last.data) + b * last.stride;
        const Range own = units();
        for (int64_t unit = own.begin; unit < own.end; unit += W) {
          const int64_t n = own.end - unit < W ? own.end - unit : W;
          const V value =
              s == 0 ? V::load(f_.h_row(slot, b) + unit) : V::load(f_.state_row(s, slot, b) + unit);
          value.store(dst + unit, static_cast<int>(n));
        }
      }
    }
  }

  const Context f_;
  typename F::MatrixUnit::Registers registers_;
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
