// One phase of one step: from the projected inputs and the recurrent product to the states that
// leave the step. A thread computes one hidden unit of one sequence and touches nothing else, so
// that the gates can be written over the projection.
#pragma once

#include "cuda/kernels/elements.h"
#include "cuda/kernels/format.h"
#include "cuda/kernels/lane.h"
#include "cuda/kernels/step.h"

namespace fusedrnn::cuda {

template <class Cell, class F, int Phase>
struct ForwardUnit {
  using Edge = typename F::Edge;
  using Row = typename F::Row;
  using State = typename F::State;
  using Real = typename F::Real;
  using V = Lane<Real>;
  static constexpr int G = Cell::kGates;
  static constexpr int S = Cell::kSaved;
  static constexpr int kStates = Cell::kStates;
  static constexpr int kFirst = Cell::phase_first(Phase);
  static constexpr int kGates = Cell::phase_gates(Phase);
  static constexpr bool kLast = Phase == Cell::kPhases - 1;
  // A later phase reads the gates of the earlier ones where they were saved. In a cell of several
  // phases saved vector i is gate i: none may lie over a projection that is still to be read.
  static constexpr bool kAlwaysSaves = !kLast;
  static_assert(Cell::kPhases == 1 || S == G);

  const ForwardStep& f;
  int64_t b, unit;

  FUSEDRNN_DEVICE void run() const {
    const bool valid = f.flags == nullptr || (f.flags[b] & kValid) != 0;
    V prev[kStates], next[kStates];
    load_states(prev);
#pragma unroll
    for (int s = 0; s < kStates; ++s) next[s] = prev[s];
    if (valid) compute(prev, next);
    if constexpr (kLast) {
      device::store(static_cast<Edge*>(f.y) + b * f.y_stride + unit,
                    valid ? next[0].value : Real(0));
      // The next step reads its states as they enter it: a cut is made here.
      const bool cut = f.next_flags != nullptr && (f.next_flags[b] & kCut) != 0;
#pragma unroll
      for (int s = 0; s < kStates; ++s) {
        if (cut) next[s] = V::zero();
      }
      store_states(next);
    }
  }

 private:
  FUSEDRNN_DEVICE int64_t state_index() const { return b * f.ld_state + unit; }

  FUSEDRNN_DEVICE void load_states(V* prev) const {
    prev[0].value = device::load(static_cast<const State*>(f.entering[0]) + state_index());
#pragma unroll
    for (int s = 1; s < kStates; ++s) {
      prev[s].value = device::load(static_cast<const Real*>(f.entering[s]) + state_index());
    }
  }

  FUSEDRNN_DEVICE void store_states(const V* next) const {
    device::store(static_cast<State*>(f.leaving[0]) + state_index(), next[0].value);
    if constexpr (F::kMixed) {
      device::store(static_cast<Row*>(f.operand) + state_index(), next[0].value);
    }
#pragma unroll
    for (int s = 1; s < kStates; ++s) {
      device::store(static_cast<Real*>(f.leaving[s]) + state_index(), next[s].value);
    }
  }

  FUSEDRNN_DEVICE Real* gate(int g) const {
    return static_cast<Real*>(f.gates) + b * f.ld_gates + g * f.H + unit;
  }
  FUSEDRNN_DEVICE Real* saved_at(int s) const {
    return s < G ? gate(s) : static_cast<Real*>(f.extra) + b * f.ld_extra + (s - G) * f.H + unit;
  }
  FUSEDRNN_DEVICE Real bias(const void* biases, int g) const {
    return biases == nullptr ? Real(0)
                             : device::load(static_cast<const Edge*>(biases) + g * f.H + unit);
  }

  // The phase's equations; its gates and the next phase's input are stored.
  FUSEDRNN_DEVICE void compute(const V* prev, V* next) const {
    V saved[S]{}, a[G], u[G], input = V::zero();
    const Real* const product = static_cast<const Real*>(f.u) + b * f.ld_u + unit;
#pragma unroll
    for (int g = 0; g < kGates; ++g) {
      a[kFirst + g].value = *gate(kFirst + g) + bias(f.b_ih, kFirst + g);
      u[kFirst + g].value = product[g * f.H] + bias(f.b_hh, kFirst + g);
    }
    // Gates before those of this phase.
#pragma unroll
    for (int s = 0; s < kFirst; ++s) saved[s].value = *saved_at(s);
    Cell::template forward<Phase>(a, u, prev, saved, next, &input);
    if (kAlwaysSaves || f.keep) {
      constexpr int kEnd = kLast ? S : kFirst + kGates;
#pragma unroll
      for (int s = kFirst; s < kEnd; ++s) *saved_at(s) = saved[s].value;
    }
    if constexpr (kLast) {
      next[0].value = round_to<Edge>(next[0].value);
    } else {
      device::store(static_cast<Row*>(f.passed) + state_index(), input.value);
    }
  }
};

template <class Cell, class F, int Phase>
__global__ void __launch_bounds__(kElementBlock) forward_step(ForwardStep step) {
  for_elements(step.B, step.H,
               [&](int64_t b, int64_t unit) { ForwardUnit<Cell, F, Phase>{step, b, unit}.run(); });
}

}  // namespace fusedrnn::cuda
