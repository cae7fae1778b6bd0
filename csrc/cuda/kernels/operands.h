// What the maps of both directions read beside gates: states and vector parameters.
#pragma once

#include "cells/dropout.h"
#include "cuda/kernels/format.h"
#include "cuda/kernels/lane.h"
#include "cuda/kernels/stages.h"
#include "cuda/kernels/step.h"

namespace fusedrnn::cuda {

FUSEDRNN_DEVICE bool has(unsigned set, int i) { return (set >> i & 1u) != 0; }

// The states of a set. Of these h is a State, the others are Real.
template <class F, int kStates>
FUSEDRNN_DEVICE void load_states(unsigned states, const void* const (&from)[kMaxStates],
                                 int64_t index, Lane<typename F::Real> (&to)[kStates]) {
  if (has(states, 0)) {
    to[0].value = device::load(static_cast<const typename F::State*>(from[0]) + index);
  }
#pragma unroll
  for (int s = 1; s < kStates; ++s) {
    if (has(states, s)) to[s].value = static_cast<const typename F::Real*>(from[s])[index];
  }
}

// A number of a vector; 0 where the vector is not given.
template <class F>
FUSEDRNN_DEVICE typename F::Real number_of(const void* vector, int64_t index) {
  if (vector == nullptr) return 0;
  return device::load(static_cast<const typename F::Edge*>(vector) + index);
}

// The share of a unit of state `s` that stays as it was.
template <class Real>
FUSEDRNN_DEVICE Lane<Real> share_that_stays(const StepNoise& noise, int s, int64_t index) {
  if (noise.stays[s] == nullptr)
    return {Real(static_cast<typename RealOf<Real>::plain>(noise.share[s]))};
  return {noise.stays[s][index] != 0 ? Real(1) : Real(0)};
}

// Constants with what the candidate of a unit is multiplied by, for cells that may drop it.
template <class Cell, class K, class Real>
FUSEDRNN_DEVICE auto with_mask(const K& constants, const StepNoise& noise, int64_t index) {
  if constexpr (cells::masks_candidate<Cell>()) {
    cells::Masked<K, Lane<Real>> masked{constants, noise.dropped != nullptr, {Real(1)}};
    if (masked.masks) {
      masked.candidate.value =
          noise.dropped[index] != 0
              ? Real(0)
              : Real(static_cast<typename RealOf<Real>::plain>(noise.candidate_scale));
    }
    return masked;
  } else {
    return constants;
  }
}

// w of a map over `units`, from w[k] on: it reads those vectors that have as many.
template <class Cell, class F, char units, int k = 0, class Step>
FUSEDRNN_DEVICE void load_vectors([[maybe_unused]] const Step& f, [[maybe_unused]] int64_t unit,
                                  [[maybe_unused]] Lane<typename F::Real>* w) {
  if constexpr (k < cells::kVectorCount<Cell>) {
    constexpr int kParameter = cells::vector_block<Cell>(k).parameter;
    constexpr int kBlock = cells::vector_block<Cell>(k).block;
    constexpr bool kReads = Cell::kParameters[kParameter].rows.letter == units;
    w[k].value = kReads ? number_of<F>(f.parameters[kParameter], kBlock * f.N + unit) : 0;
    load_vectors<Cell, F, units, k + 1>(f, unit, w);
  }
}

}  // namespace fusedrnn::cuda
