// Dropout of a row between layers, of weights, or of their gradients; and the masks of a walk.
#pragma once

#include "cells/dropout.h"
#include "core/problem.h"
#include "cpu/kernels/context.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Numbers that are drawn at a time.
constexpr int64_t kUnitsTogether = 128;

// A mask: `dropped` in the place of the numbers that are, else `kept`.
template <class Real>
struct MaskValues {
  uint64_t seed;
  int64_t row;
  uint32_t last_dropped;
  Real dropped, kept;
};

// Of two vectors, the even lanes of both in turn, or the odd ones.
template <int kFirst, int... I>
FUSEDRNN_INLINE Words alternate(Words a, Words b, LaneNumbers<I...>) {
  return __builtin_shufflevector(a, b, (kFirst + I / 2 * 2 + I % 2 * int{sizeof...(I)})...);
}

// The numbers of cells::philox(), of kDraws counters side by side. `values`: [kDraws *
// kUnitsOfDraw].
template <int kDraws, class Real>
FUSEDRNN_ONCE void draw_counters(const MaskValues<Real>& mask, int64_t t, int64_t b, int64_t block,
                                 Real* values) {
  constexpr int kWords = cells::kUnitsOfDraw;
  constexpr int kLanes = sizeof(Words) / sizeof(uint64_t), kVectors = kDraws / kLanes;
  constexpr typename FirstLanes<kLanes>::type kAll{};
  static_assert(kDraws % kLanes == 0 && kWords == 4);
  // The first half of a vector's counters in its even lanes, the others in the odd ones: that is
  // where alternate() finds them.
  Words order;
  FUSEDRNN_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    order[i] = static_cast<uint64_t>(i / 2 + i % 2 * (kLanes / 2));
  }
  const cells::Philox first = cells::counter_of(mask.row, t, b, block);
  Words words[kWords][kVectors];
  FUSEDRNN_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    words[0][v] = order + static_cast<uint64_t>(block + v * kLanes);
    FUSEDRNN_UNROLL
    for (int k = 1; k < kWords; ++k) words[k][v] = Words{} + uint64_t{first.words[k]};
  }
  uint64_t key = mask.seed;
  FUSEDRNN_UNROLL
  for (int round = 0; round < cells::kPhiloxRounds; ++round) {
    FUSEDRNN_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      cells::philox_round(key, words[0][v], words[1][v], words[2][v], words[3][v],
                          [](Words a, uint32_t word)
                              FUSEDRNN_LAMBDA { return multiply_words(a, word); });
    }
    key = cells::next_philox_key(key);
  }
  constexpr uint64_t kLow = 0xffffffffu;
  alignas(64) uint32_t numbers[kDraws * kWords];
  FUSEDRNN_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const Words lower = (words[0][v] & kLow) | words[1][v] << 32;
    const Words upper = (words[2][v] & kLow) | words[3][v] << 32;
    const Words halves[] = {alternate<0>(lower, upper, kAll), alternate<1>(lower, upper, kAll)};
    __builtin_memcpy(numbers + v * kLanes * kWords, halves, sizeof halves);
  }
  for (int i = 0; i < kDraws * kWords; ++i) {
    values[i] = numbers[i] > mask.last_dropped ? mask.kept : mask.dropped;
  }
}

// Whether draw() leaves nothing beyond the last of so many units.
FUSEDRNN_INLINE bool draws_exactly(int64_t units) {
  return units == kUnitsTogether || units == kUnitsTogether / 2;
}

// The mask of at most kUnitsTogether units from unit `first` on, a multiple of kUnitsOfDraw; those
// beyond, of kUnitsTogether, have numbers as well.
template <class Real>
FUSEDRNN_INLINE void draw(const MaskValues<Real>& mask, int64_t t, int64_t b, int64_t first,
                          int64_t units, Real* values) {
  constexpr int kAll = kUnitsTogether / cells::kUnitsOfDraw, kHalf = kAll / 2;
  const int64_t block = first / cells::kUnitsOfDraw;
  if (units <= kUnitsTogether / 2) {
    draw_counters<kHalf>(mask, t, b, block, values);
  } else {
    draw_counters<kAll>(mask, t, b, block, values);
  }
}

// A mask of a walk, [B][ld], of the thread's own units.
template <class Real>
struct OwnMask {
  MaskValues<Real> values;
  Real* masks = nullptr;
  int64_t begin = 0, end = 0;  // units
};

template <class Context>
FUSEDRNN_ONCE OwnMask<typename Context::Real> own_mask(
    const Context& context, const MaskValues<typename Context::Real>& values, char size,
    void* masks) {
  const Range panels = context.panels(size);
  const int64_t all = extent(context.p, size), end = panels.end * context.panel_units;
  return {values, static_cast<typename Context::Real*>(masks), panels.begin * context.panel_units,
          end < all ? end : all};
}

// Of some of the thread's rows.
template <class Context>
FUSEDRNN_ONCE void draw_own(const Context& context, const OwnMask<typename Context::Real>& own,
                            int64_t t, Range rows) {
  using Real = typename Context::Real;
  Real values[kUnitsTogether];
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t b = context.sequences.number(row);
    Real* const dst = own.masks + context.state_offset(0, row);
    for (int64_t first = own.begin / cells::kUnitsOfDraw * cells::kUnitsOfDraw; first < own.end;
         first += kUnitsTogether) {
      const int64_t left = own.end - first, units = left < kUnitsTogether ? left : kUnitsTogether;
      if (first >= own.begin && draws_exactly(units)) {
        draw(own.values, t, b, first, units, dst + first);
        continue;
      }
      draw(own.values, t, b, first, units, values);
      // Others draw the units beside them.
      for (int64_t i = first < own.begin ? own.begin - first : 0; i < units; ++i) {
        dst[first + i] = values[i];
      }
    }
  }
}

// That of what w_hh multiplies, of all steps.
template <class Context>
FUSEDRNN_ONCE void draw_operand_mask(const Context& context) {
  using Real = typename Context::Real;
  const Noise& noise = context.p.noise;
  if (!noise.training || noise.state == 0) return;
  const cells::DropRate rate = cells::DropRate::of(noise.state);
  const MaskValues<Real> mask{noise.seed, cells::row_of_mask(cells::Mask::state, noise.run),
                              rate.last_dropped, Real(0),
                              static_cast<typename PlainOf<Real>::type>(rate.scale)};
  const char size = context.shape.states[0].size;
  draw_own(context, own_mask(context, mask, size, context.job.noise.operand), 0,
           {0, context.sequences.count});
}

// Those of each step, found once for a walk: small steps notice it.
template <class Context>
class StepMasks {
 public:
  using Real = typename Context::Real;

  FUSEDRNN_MEMBER explicit StepMasks(const Context& context) : context_(context) {
    if (context.p.noise.training) find();
  }

  // `step`: when it is taken.
  FUSEDRNN_MEMBER void draw(int64_t step, Range rows) const {
    const int64_t t = context_.p.noise.first_step + context_.slots.time(step);
    for (int i = 0; i < count_; ++i) draw_own(context_, each_[i], t, rows);
  }

 private:
  FUSEDRNN_ONCE void find() {
    const Noise& noise = context_.p.noise;
    if (noise.candidate != 0) {
      const cells::DropRate rate = cells::DropRate::of(noise.candidate);
      add({noise.seed, cells::row_of_mask(cells::Mask::candidate, noise.run), rate.last_dropped,
           Real(0), static_cast<typename PlainOf<Real>::type>(rate.scale)},
          'H', context_.job.noise.candidate);
    }
    for (int s = 0; s < context_.shape.state_count; ++s) {
      if (noise.zoneout[s] == 0) continue;
      add({noise.seed, cells::row_of_zoneout(s, noise.run),
           cells::DropRate::of(noise.zoneout[s]).last_dropped, Real(1), Real(0)},
          context_.shape.states[s].size, context_.job.noise.zoneout[s]);
    }
  }
  FUSEDRNN_MEMBER void add(const MaskValues<Real>& values, char size, void* masks) {
    each_[count_++] = own_mask(context_, values, size, masks);
  }

  const Context& context_;
  int count_ = 0;
  OwnMask<Real> each_[1 + kMaxStates];
};

// This thread's share of the T * B rows.
template <class F>
void run_drop(const DropCall& call, int thread, int threads) {
  using V = typename F::V;
  using Edge = typename F::Edge;
  using Real = typename F::Real;
  const cells::DropRate rate = cells::DropRate::of(call.rate);
  const MaskValues<Real> mask{call.seed, call.row, rate.last_dropped, Real(0),
                              static_cast<typename PlainOf<Real>::type>(rate.scale)};
  const int64_t rows = call.T * call.B;
  const int64_t begin = rows * thread / threads, end = rows * (thread + 1) / threads;
  Real factors[kUnitsTogether];
  for (int64_t row = begin; row < end; ++row) {
    const int64_t t = row / call.B, b = row % call.B;
    const auto at = [&](const Sequence& s) {
      return static_cast<Edge*>(s.data) + t * s.t_stride + b * s.b_stride;
    };
    const Edge* const from = at(call.from);
    Edge* const to = at(call.to);
    for (int64_t first = 0; first < call.n; first += kUnitsTogether) {
      const int64_t left = call.n - first, units = left < kUnitsTogether ? left : kUnitsTogether;
      draw(mask, call.first_step + t, b, first, units, factors);
      for (int64_t unit = 0; unit < units; unit += V::width) {
        const int lanes = lanes_at<V>(unit, units);
        const V value = V::load(from + first + unit, lanes), factor = V::load(factors + unit);
        // What is dropped is zero whatever it was.
        const V result = select(factor <= V::zero(), V::zero(), value * factor);
        result.store(to + first + unit, lanes);
      }
    }
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
