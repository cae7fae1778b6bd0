// One phase of one step of backpropagation: from the gradients of the states that left the step to
// those of the gates (delta) and of the states that entered it (carry, less what goes through
// W_hh). A thread computes one hidden unit of one sequence and touches nothing else.
#pragma once

#include "cuda/kernels/elements.h"
#include "cuda/kernels/flags.h"
#include "cuda/kernels/format.h"
#include "cuda/kernels/lane.h"
#include "cuda/kernels/step.h"

namespace fusedrnn::cuda {

template <class Cell, class F, int Phase>
struct BackwardUnit {
  using Edge = typename F::Edge;
  using State = typename F::State;
  using Delta = typename F::Delta;
  using Real = typename F::Real;
  using V = Lane<Real>;
  static constexpr int G = Cell::kGates;
  static constexpr int S = Cell::kSaved;
  static constexpr int D = Cell::kDeltas;
  static constexpr int kStates = Cell::kStates;
  static constexpr bool kFirst = Phase == Cell::kPhases - 1;  // of the phases, going backward

  // Bit d: this phase writes block d.
  static constexpr unsigned blocks_of_phase() {
    unsigned blocks = 0;
    for (int d = 0; d < D; ++d) blocks |= (Cell::delta_phase(d) == Phase ? 1u : 0u) << d;
    return blocks;
  }
  static constexpr unsigned kBlocks = blocks_of_phase();

  const BackwardStep& f;
  int64_t b, unit;

  FUSEDRNN_DEVICE void run() const {
    const bool valid = f.flags == nullptr || (f.flags[b] & kValid) != 0;
    const V product = load_product();
    V delta[D], dnext[kStates], dprev[kStates];
#pragma unroll
    for (int s = 0; s < kStates; ++s) dnext[s].value = *carry(s);
    if constexpr (kFirst) {
      if (is_multiplied(f.following_flags, b)) dnext[0] = dnext[0] + product;
    }
#pragma unroll
    for (int s = 0; s < kStates; ++s) dprev[s] = dnext[s];
#pragma unroll
    for (int d = 0; d < D; ++d) delta[d] = V::zero();
    if (valid) compute(product, dnext, delta, dprev);
#pragma unroll
    for (int s = 0; s < kStates; ++s) *carry(s) = dprev[s].value;
    // Where the step does not exist these are zeros: products over all steps need no masks.
    Delta* const out = static_cast<Delta*>(f.delta) + b * f.ld_delta + unit;
#pragma unroll
    for (int d = 0; d < D; ++d) {
      if ((kBlocks >> d & 1u) != 0) device::store(out + d * f.H, delta[d].value);
    }
  }

 private:
  FUSEDRNN_DEVICE Real* carry(int s) const {
    return static_cast<Real*>(f.carry[s]) + b * f.H + unit;
  }
  FUSEDRNN_DEVICE V load_product() const {
    if (f.product == nullptr) return V::zero();
    return {static_cast<const Real*>(f.product)[b * f.ld_product + unit]};
  }
  FUSEDRNN_DEVICE V saved_at(int s) const {
    if (s < G) return {static_cast<const Real*>(f.gates)[b * f.ld_gates + s * f.H + unit]};
    return {static_cast<const Real*>(f.extra)[b * f.ld_extra + (s - G) * f.H + unit]};
  }

  FUSEDRNN_DEVICE void compute(V product, V* dnext, V* delta, V* dprev) const {
    if constexpr (kFirst) {
      if (f.dy != nullptr) {
        dnext[0].value += device::load(static_cast<const Edge*>(f.dy) + b * f.dy_stride + unit);
      }
    }
    V saved[S], prev[kStates];
#pragma unroll
    for (int s = 0; s < S; ++s) saved[s] = saved_at(s);
    const int64_t state = b * f.ld_state + unit;
    prev[0].value = device::load(static_cast<const State*>(f.entering[0]) + state);
#pragma unroll
    for (int s = 1; s < kStates; ++s) {
      prev[s].value = static_cast<const Real*>(f.entering[s])[state];
    }
    Cell::template backward<Phase>(saved, prev, dnext, product, delta, dprev);
    if constexpr (Phase == 0) {
      const bool cut = f.flags != nullptr && (f.flags[b] & kCut) != 0;
#pragma unroll
      for (int s = 0; s < kStates; ++s) {
        if (cut) dprev[s] = V::zero();
      }
    }
  }
};

template <class Cell, class F, int Phase>
__global__ void __launch_bounds__(kElementBlock) backward_step(BackwardStep step) {
  for_elements(step.B, step.H,
               [&](int64_t b, int64_t unit) { BackwardUnit<Cell, F, Phase>{step, b, unit}.run(); });
}

}  // namespace fusedrnn::cuda
