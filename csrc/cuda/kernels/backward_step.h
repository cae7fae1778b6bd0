// One stage of one step of backpropagation: from the gradients of the states that left the step to
// those of the gates (delta) and of the states that entered it (carry, less what goes through
// products). A thread computes one unit of one sequence and touches nothing else.
#pragma once

#include "cuda/kernels/elements.h"
#include "cuda/kernels/flags.h"
#include "cuda/kernels/operands.h"

namespace fusedrnn::cuda {

template <class Cell, class F, int Stage>
struct BackwardUnit {
  using Edge = typename F::Edge;
  using Delta = typename F::Delta;
  using Real = typename F::Real;
  using V = Lane<Real>;
  static constexpr int G = Cell::kGates;
  static constexpr int S = Cell::kSaved;
  static constexpr int D = Cell::kDeltas;
  static constexpr int kStates = cells::kStateCount<Cell>;
  static constexpr int kVectors = cells::kVectorCount<Cell>;
  using Sets = StageSets<Cell, Stage>;
  static constexpr bool kMadeH = Stage == cells::kStageCount<Cell> - 1;
  static_assert(!kMadeH || (Sets::kStates & 1u) != 0, "the last stage makes h");
  // Nothing that comes after it writes the gradients of these states.
  static constexpr bool kMadeStates = Stage == last_stage_over<Cell>(Sets::kUnits);
  static constexpr bool kEndsStates = Stage == first_stage_over<Cell>(Sets::kUnits);

  const BackwardStep& f;
  int64_t b, unit;
  const cells::ConstantsOf<Cell, typename F::Plain>& constants;

  FUSEDRNN_DEVICE void run() const {
    const bool valid = f.flags == nullptr || (f.flags[b] & kValid) != 0;
    const V product = load_product();
    V delta[D], dnext[kStates]{}, dprev[kStates];
#pragma unroll
    for (int s = 0; s < kStates; ++s) {
      if (has(Sets::kStates, s)) dnext[s].value = *carry(s);
    }
    if constexpr (kMadeH) {
      if (is_multiplied(f.following_flags, b)) {
        dnext[0] = dnext[0] + product;
      } else if (is_cut(f.following_flags, b)) {
        add_to_reset(0, product);
      }
      if (f.dy != nullptr && is_shown(f.flags, b)) {
        dnext[0].value +=
            device::load(static_cast<const Edge*>(f.dy) + number() * f.dy_stride + unit);
      }
    }
    if constexpr (kMadeStates) {
      const bool shown = is_shown(f.flags, b);
#pragma unroll
      for (int s = 0; s < kStates; ++s) {
        if (!has(Sets::kStates, s) || f.dshown[s] == nullptr || !shown) continue;
        const Edge* const dy = static_cast<const Edge*>(f.dshown[s]);
        dnext[s].value += device::load(dy + number() * f.dshown_stride[s] + unit);
      }
    }
    if constexpr (kMadeH) {
      if (f.clip_dh > 0) {
        const Real limit = static_cast<typename F::Plain>(f.clip_dh);
        dnext[0].value = device::max(-limit, device::min(limit, dnext[0].value));
      }
    }
    if constexpr (kMadeStates) {
#pragma unroll
      for (int s = 0; s < kStates; ++s) {
        if (!has(Sets::kStates, s) || f.flow[s] == nullptr) continue;
        static_cast<Real*>(f.flow[s])[number() * f.ld + unit] = dnext[s].value;
      }
    }
#pragma unroll
    for (int s = 0; s < kStates; ++s) dprev[s] = dnext[s];
    V stayed[kStates]{};
    const bool zones = kMadeStates && valid && f.noise.zones;
    if (zones) zone_out(dnext, stayed);
#pragma unroll
    for (int d = 0; d < D; ++d) delta[d] = V::zero();
    if (valid) compute(product, dnext, stayed, delta, dprev);
#pragma unroll
    for (int s = 0; s < kStates; ++s) {
      if (has(Sets::kStates, s)) *carry(s) = dprev[s].value;
    }
    // Where the step does not exist these are zeros: products over all steps need no masks.
    if (b >= f.living) return;
#pragma unroll
    for (int d = 0; d < D; ++d) {
      if (!has(Sets::kDeltas, d)) continue;
      device::store(static_cast<Delta*>(f.delta[d]) + b * f.ld_delta + unit, delta[d].value);
    }
  }

 private:
  FUSEDRNN_DEVICE int64_t number() const { return number_of(f.numbers, b); }
  FUSEDRNN_DEVICE int64_t noise_index() const { return number() * f.N + unit; }
  FUSEDRNN_DEVICE Real* carry(int s) const {
    return static_cast<Real*>(f.carry[s]) + b * f.ld + unit;
  }
  // A state that was cut: its gradient is that of the reset state.
  FUSEDRNN_DEVICE void add_to_reset(int s, V gradient) const {
    if (f.dreset[s] == nullptr) return;
    static_cast<Real*>(f.dreset[s])[number() * f.ld + unit] += gradient.value;
  }
  FUSEDRNN_DEVICE V load_product() const {
    if (f.product == nullptr) return V::zero();
    return {static_cast<const Real*>(f.product)[b * f.ld + unit]};
  }
  FUSEDRNN_DEVICE Real saved_at(int s) const {
    if (s < G) return static_cast<const Real*>(f.gates)[b * f.ld_gates + s * f.N + unit];
    return static_cast<const Real*>(f.extra)[b * f.ld_extra + (s - G) * f.N + unit];
  }

  // From the gradients of the states that leave the step to those of what the cell computed, and of
  // what stayed.
  FUSEDRNN_DEVICE void zone_out(V* dnext, V* stayed) const {
#pragma unroll
    for (int s = 0; s < kStates; ++s) {
      if (!has(Sets::kStates, s) || f.noise.share[s] == 0) continue;
      const V stays = share_that_stays<Real>(f.noise, s, noise_index());
      stayed[s] = cells::gradient_of_stayed(stays, dnext[s]);
      dnext[s] = cells::gradient_of_computed(stays, dnext[s]);
    }
  }

  FUSEDRNN_DEVICE void compute(V product, const V* dnext, const V* stayed, V* delta,
                               V* dprev) const {
    V saved[S]{}, prev[kStates]{}, w[kVectors + 1];
#pragma unroll
    for (int s = 0; s < S; ++s) {
      if constexpr (Sets::kOverH) saved[s].value = saved_at(s);
    }
    load_states<F>(Sets::kStates, f.entering, b * f.ld + unit, prev);
    load_vectors<Cell, F, Sets::kUnits>(f, unit, w);
    if constexpr (cells::kConstantCount<Cell> > 0) {
      using K = cells::ConstantsOf<Cell, typename F::Plain>;
      if (constants.usual) {
        Cell::template backward<Stage>(
            saved, w, prev, dnext, product, delta, dprev,
            with_mask<Cell, cells::Known<K, true>, Real>({constants}, f.noise, noise_index()));
      } else {
        Cell::template backward<Stage>(
            saved, w, prev, dnext, product, delta, dprev,
            with_mask<Cell, cells::Known<K, false>, Real>({constants}, f.noise, noise_index()));
      }
    } else if constexpr (cells::kNormCount<Cell> > 0) {
      V dnormed[cells::kNormedBlocks<Cell>]{};
      Cell::template backward<Stage>(saved, w, prev, dnext, product, delta, dprev, dnormed);
#pragma unroll
      for (int n = 0; n < cells::kNormedBlocks<Cell>; ++n) {
        if (!has(Sets::kNormed, n)) continue;
        static_cast<Real*>(f.normed)[b * f.ld_normed + n * f.N + unit] = dnormed[n].value;
      }
    } else {
      Cell::template backward<Stage>(saved, w, prev, dnext, product, delta, dprev);
    }
    if constexpr (kMadeStates) {
      if (f.noise.zones) {
#pragma unroll
        for (int s = 0; s < kStates; ++s) {
          if (has(Sets::kStates, s)) dprev[s] = dprev[s] + stayed[s];
        }
      }
    }
    if constexpr (kEndsStates) {
      const bool cut = is_cut(f.flags, b);
#pragma unroll
      for (int s = 0; s < kStates; ++s) {
        if (!cut || !has(Sets::kStates, s)) continue;
        add_to_reset(s, dprev[s]);
        dprev[s] = V::zero();
      }
    }
  }
};

template <class Cell, class F, int Stage>
__global__ void __launch_bounds__(kElementBlock)
    backward_step(BackwardStep step, cells::ConstantsOf<Cell, typename F::Plain> constants) {
  for_elements(step.B, step.N, [&](int64_t b, int64_t unit) {
    BackwardUnit<Cell, F, Stage>{step, b, unit, constants}.run();
  });
}

}  // namespace fusedrnn::cuda
