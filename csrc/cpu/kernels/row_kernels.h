// What works through rows and knows nothing but what maps compute with: statistics of norms, masks,
// norms of gradients. Compiled beside the maps, and called by the units of all formats. Plain
// structs, as in job.h.
#pragma once

#include "cells/dropout.h"
#include "cpu/kernels/map.h"

namespace fusedrnn::cpu {

// A row's vectors of some gates: that of gate g and panel p begins at data + p * panel + g * gate.
template <class Real>
struct GateVectors {
  Real* data;
  int64_t panel, gate;
};

// Of what the statistics of a norm are: so many gates of so many units.
struct NormedRow {
  int gates;
  int64_t units;
  double epsilon;
};

// Numbers that are drawn at a time, and at how many places in a row.
constexpr int kUnitsTogether = 64, kPlacesTogether = 12;

// What all masks of a kind have in common: `dropped` in the place of the numbers that are, else
// `kept`; and the keys of all rounds, which cost nothing where they come from memory.
template <class Real>
struct MaskValues {
  Real dropped, kept;
  uint32_t last_dropped;
  int64_t row;
  uint64_t even_keys[cells::kPhiloxRounds], odd_keys[cells::kPhiloxRounds];
};

// A sequence at a step, and where its numbers go.
struct Place {
  int64_t t, b, offset;
};

// A mask of a walk, [steps][B][ld], of the thread's own units.
template <class Real>
struct OwnMask {
  MaskValues<Real> values;
  Real* masks = nullptr;
  int64_t begin = 0, end = 0;  // units
};

template <class Real>
struct RowKernels {
  // The statistics of a row, or of the sums of two. Vectors may hold anything beyond the last unit.
  RowNorm<Real> (*find_norm)(const NormedRow& row, const GateVectors<const Real>& a);
  RowNorm<Real> (*find_norm_of_sum)(const NormedRow& row, const GateVectors<const Real>& a,
                                    const GateVectors<const Real>& b);
  // `to` may be `a`.
  void (*normalise)(const NormedRow& row, const GateVectors<const Real>& a,
                    const RowNorm<Real>& norm, const GateVectors<Real>& to);
  // From the gradients of normalised numbers to those of the numbers,
  //   dx = scale * (dx^ - mean(dx^) - x^ * mean(dx^ * x^)),
  // and what else reaches these, `beside` if that is not null. `to` may be `dnormed`; `whole`:
  // there is room for vectors beyond the last unit.
  void (*through_norm)(const NormedRow& row, const GateVectors<const Real>& dnormed,
                       const GateVectors<const Real>& normed, const Real& scale, const Real* beside,
                       const GateVectors<Real>& to, bool whole);

  // The norm of n numbers, and that of a row from the sums of its squares that maps leave.
  double (*length)(const Real* numbers, int64_t n);
  double (*length_of_sums)(const double* sums);

  // A mask of a rate: of a state that stays, 1 where it is dropped, else 0; of what is multiplied
  // by it 0, else 1 / (1 - rate).
  void (*begin_mask)(uint64_t seed, int64_t row, double rate, bool stays, MaskValues<Real>& mask);
  // The masks of kUnitsTogether units from those of a block on, at some places.
  void (*draw)(const MaskValues<Real>& mask, int64_t block, const Place* places, int64_t count,
               Real* values);
  // At most kPlacesTogether of them.
  void (*draw_own)(const OwnMask<Real>& own, const Place* places, int64_t count);
};

}  // namespace fusedrnn::cpu

namespace fusedrnn::cpu::FUSEDRNN_MAPS_ISA {

// What kernels/maps.cpp defines.
extern const RowKernels<float> float32_rows;
extern const RowKernels<double> float64_rows;
extern const RowKernels<Dual<float>> dual32_rows;
extern const RowKernels<Dual<double>> dual64_rows;

}  // namespace fusedrnn::cpu::FUSEDRNN_MAPS_ISA

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class Real>
FUSEDRNN_INLINE const RowKernels<Real>& row_kernels() {
  if constexpr (kSame<Real, float>) {
    return FUSEDRNN_MAPS_ISA::float32_rows;
  } else if constexpr (kSame<Real, double>) {
    return FUSEDRNN_MAPS_ISA::float64_rows;
  } else if constexpr (kSame<Real, Dual<float>>) {
    return FUSEDRNN_MAPS_ISA::dual32_rows;
  } else {
    return FUSEDRNN_MAPS_ISA::dual64_rows;
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
