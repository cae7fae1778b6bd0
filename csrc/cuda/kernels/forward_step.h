// One stage of one step: from the projected inputs and the stage's product to the states that leave
// the step. A thread computes one unit of one sequence and touches nothing else, so that the gates
// can be written over the projection.
#pragma once

#include "cuda/kernels/elements.h"
#include "cuda/kernels/flags.h"
#include "cuda/kernels/operands.h"

namespace fusedrnn::cuda {

template <class Cell, class F, int Stage>
struct ForwardUnit {
  using Edge = typename F::Edge;
  using Row = typename F::Row;
  using State = typename F::State;
  using Real = typename F::Real;
  using V = Lane<Real>;
  static constexpr int G = Cell::kGates;
  static constexpr int S = Cell::kSaved;
  static constexpr int kStates = cells::kStateCount<Cell>;
  static constexpr int kVectors = cells::kVectorCount<Cell>;
  static constexpr int kFirst = Cell::kStages[Stage].product.first;
  static constexpr int kGates = Cell::kStages[Stage].product.gates;
  static constexpr int kInputBias = Cell::kInput.bias;
  static constexpr int kBias = Cell::kStages[Stage].product.bias;
  using Sets = StageSets<Cell, Stage>;
  static constexpr bool kMakesStates = Stage == last_stage_over<Cell>(Sets::kUnits);
  static constexpr bool kMakesH = Stage == cells::kStageCount<Cell> - 1;
  static constexpr bool kPassesOn = passes_on<Cell>(Stage);
  static constexpr bool kReadsRow = reads_row<Cell>(Stage);
  static constexpr bool kPassesRow = reads_row<Cell>(Stage + 1);
  // A later stage reads what was saved by the earlier ones.
  static constexpr bool kAlwaysSaves = Stage < last_stage_over<Cell>('H');

  const ForwardStep& f;
  int64_t b, unit;
  const cells::ConstantsOf<Cell, typename F::Plain>& constants;

  FUSEDRNN_DEVICE void run() const {
    const bool valid = f.flags == nullptr || (f.flags[b] & kValid) != 0;
    V prev[kStates]{}, next[kStates];
    load_states<F>(Sets::kStates, f.entering, state_index(), prev);
#pragma unroll
    for (int s = 0; s < kStates; ++s) next[s] = prev[s];
    if (valid) compute(prev, next);
    if (f.y == nullptr) return;
    if constexpr (kMakesH) {
      device::store(static_cast<Edge*>(f.y) + number() * f.y_stride + unit,
                    is_shown(f.flags, b) ? next[0].value : Real(0));
    }
    if constexpr (kMakesStates) show_states(next);
    if constexpr (kMakesStates) store_states(next);
  }

 private:
  FUSEDRNN_DEVICE int64_t state_index() const { return b * f.ld + unit; }
  FUSEDRNN_DEVICE int64_t number() const {
    if (f.numbers == nullptr) return b;
    if (f.batch == 0) return f.numbers[b];
    const int64_t step = b / f.batch;
    return step * f.batch + f.numbers[b - step * f.batch];
  }
  FUSEDRNN_DEVICE int64_t noise_index() const { return number() * f.N + unit; }

  FUSEDRNN_DEVICE void show_states(const V* next) const {
    const bool shown = is_shown(f.flags, b);
#pragma unroll
    for (int s = 0; s < kStates; ++s) {
      if (!has(Sets::kStates, s) || f.shown[s] == nullptr) continue;
      device::store(static_cast<Edge*>(f.shown[s]) + number() * f.shown_stride[s] + unit,
                    shown ? next[s].value : Real(0));
    }
  }

  // As the next step reads them: a cut is made here.
  FUSEDRNN_DEVICE void store_states(V* next) const {
    const bool cut = f.next_flags != nullptr && (f.next_flags[b] & kCut) != 0;
#pragma unroll
    for (int s = 0; s < kStates; ++s) {
      if (cut && has(Sets::kStates, s)) next[s].value = number_of<F>(f.reset[s], unit);
    }
    if (has(Sets::kStates, 0)) {
      device::store(static_cast<State*>(f.leaving[0]) + state_index(), next[0].value);
      if constexpr (F::kMixed) {
        device::store(static_cast<Row*>(f.operand) + state_index(), next[0].value);
      }
    }
#pragma unroll
    for (int s = 1; s < kStates; ++s) {
      if (has(Sets::kStates, s)) static_cast<Real*>(f.leaving[s])[state_index()] = next[s].value;
    }
  }

  FUSEDRNN_DEVICE Real* gate(int g) const {
    return static_cast<Real*>(f.gates) + b * f.ld_gates + g * f.N + unit;
  }
  FUSEDRNN_DEVICE Real* saved_at(int s) const {
    return s < G ? gate(s) : static_cast<Real*>(f.extra) + b * f.ld_extra + (s - G) * f.N + unit;
  }
  // Of gate g of a product.
  FUSEDRNN_DEVICE Real bias(int parameter, int g) const {
    return parameter < 0 ? Real(0) : number_of<F>(f.parameters[parameter], g * f.N + unit);
  }

  FUSEDRNN_DEVICE void zone_out(const V* prev, V* next) const {
#pragma unroll
    for (int s = 0; s < kStates; ++s) {
      if (!has(Sets::kStates, s) || f.noise.share[s] == 0) continue;
      const V stays = share_that_stays<Real>(f.noise, s, noise_index());
      next[s] = cells::zoned(stays, prev[s], next[s]);
    }
  }

  // The stage's equations; what it saves and passes on is stored.
  FUSEDRNN_DEVICE void compute(const V* prev, V* next) const {
    V a[G]{}, u[G]{}, w[kVectors + 1], saved[S]{}, passed = V::zero();
#pragma unroll
    for (int g = 0; g < G; ++g) {
      if (has(Sets::kGates, g)) a[g].value = *gate(g) + bias(kInputBias, g);
    }
    const Real* const product = static_cast<const Real*>(f.u) + b * f.ld_u + unit;
#pragma unroll
    for (int g = 0; g < kGates; ++g) {
      u[kFirst + g].value = product[g * f.N] + bias(kBias, kFirst + g);
    }
    if constexpr (kReadsRow) u[0].value = *product;
    load_vectors<Cell, F, Sets::kUnits>(f, unit, w);
#pragma unroll
    for (int s = 0; s < S; ++s) {
      if (has(Sets::kSavedBefore, s) && (s < G || f.keep)) saved[s].value = *saved_at(s);
    }
    if constexpr (cells::kConstantCount<Cell> > 0) {
      using K = cells::ConstantsOf<Cell, typename F::Plain>;
      if (constants.usual) {
        Cell::template forward<Stage>(
            a, u, w, prev, saved, next, &passed,
            with_mask<Cell, cells::Known<K, true>, Real>({constants}, f.noise, noise_index()));
      } else {
        Cell::template forward<Stage>(
            a, u, w, prev, saved, next, &passed,
            with_mask<Cell, cells::Known<K, false>, Real>({constants}, f.noise, noise_index()));
      }
    } else if constexpr (cells::kNormCount<Cell> > 0) {
      constexpr int kNorms = cells::kNormCount<Cell>;
      cells::NormOf<V> norms[kNorms];
      const Real* const statistics = static_cast<const Real*>(f.statistics) + b * f.ld_statistics;
#pragma unroll
      for (int n = 0; n < kNorms; ++n) norms[n] = {{statistics[n * 2]}, {statistics[n * 2 + 1]}};
      Cell::template forward<Stage>(a, u, w, prev, saved, next, &passed, norms);
    } else {
      Cell::template forward<Stage>(a, u, w, prev, saved, next, &passed);
    }
#pragma unroll
    for (int s = 0; s < S; ++s) {
      // Beyond the gates there is nothing that a later stage reads.
      const bool saves = f.keep || (kAlwaysSaves && s < G);
      if (has(Sets::kSaves, s) && saves) *saved_at(s) = saved[s].value;
    }
    if constexpr (kMakesStates) {
      if (f.noise.zones) zone_out(prev, next);
    }
    if constexpr (kMakesH) next[0].value = round_to<Edge>(next[0].value);
    if constexpr (kPassesOn) {
      device::store(static_cast<Row*>(f.passed) + state_index(), passed.value);
    }
    if constexpr (kPassesRow) {
      static_cast<Real*>(f.passed_row)[state_index()] = passed.value;
    }
  }
};

template <class Cell, class F, int Stage>
__global__ void __launch_bounds__(kElementBlock)
    forward_step(ForwardStep step, cells::ConstantsOf<Cell, typename F::Plain> constants) {
  for_elements(step.B, step.N, [&](int64_t b, int64_t unit) {
    ForwardUnit<Cell, F, Stage>{step, b, unit, constants}.run();
  });
}

}  // namespace fusedrnn::cuda
