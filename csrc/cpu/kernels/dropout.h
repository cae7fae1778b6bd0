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

// The rounds of cells::philox(), of kDraws counters side by side. `values`: [kDraws *
// kUnitsOfDraw].
template <int kDraws, class Real>
FUSEDRNN_ONCE void draw_counters(const MaskValues<Real>& mask, int64_t t, int64_t b, int64_t block,
                                 Real* values) {
  constexpr int kWords = cells::kUnitsOfDraw;
  constexpr int kLanes = sizeof(Words) / sizeof(uint64_t), kVectors = kDraws / kLanes;
  static_assert(kDraws % kLanes == 0 && kWords == 4);
  alignas(64) uint64_t lanes[kWords][kDraws];
  for (int i = 0; i < kDraws; ++i) {
    const cells::Philox counter = cells::counter_of(mask.row, t, b, block + i);
    for (int k = 0; k < kWords; ++k) lanes[k][i] = counter.words[k];
  }
  Words words[kWords][kVectors];
  __builtin_memcpy(words, lanes, sizeof words);
  constexpr uint64_t kLow = 0xffffffffu;
  uint64_t key = mask.seed;
  FUSEDRNN_UNROLL
  for (int round = 0; round < cells::kPhiloxRounds; ++round) {
    FUSEDRNN_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      Words &w0 = words[0][v], &w1 = words[1][v], &w2 = words[2][v], &w3 = words[3][v];
      const Words first = multiply_words(w0, cells::kPhiloxFirst);
      const Words second = multiply_words(w2, cells::kPhiloxSecond);
      w0 = (second >> 32) ^ w1 ^ (key & kLow);
      w1 = second & kLow;
      w2 = (first >> 32) ^ w3 ^ (key >> 32);
      w3 = first & kLow;
    }
    key = cells::next_philox_key(key);
  }
  __builtin_memcpy(lanes, words, sizeof words);
  for (int i = 0; i < kDraws; ++i) {
    for (int k = 0; k < kWords; ++k) {
      const auto number = static_cast<uint32_t>(lanes[k][i]);
      values[i * kWords + k] = number > mask.last_dropped ? mask.kept : mask.dropped;
    }
  }
}

// The mask of at most kUnitsTogether units from unit `first` on, a multiple of kUnitsOfDraw; those
// beyond have numbers as well.
template <class Real>
FUSEDRNN_INLINE void draw(const MaskValues<Real>& mask, int64_t t, int64_t b, int64_t first,
                          int64_t units, Real (&values)[kUnitsTogether]) {
  constexpr int kAll = kUnitsTogether / cells::kUnitsOfDraw, kHalf = kAll / 2;
  const int64_t block = first / cells::kUnitsOfDraw;
  if (units <= kUnitsTogether / 2) {
    draw_counters<kHalf>(mask, t, b, block, values);
  } else {
    draw_counters<kAll>(mask, t, b, block, values);
  }
}

// The mask of a walk at one step, [B][ld]: the thread's own sequences and units.
template <class Context>
FUSEDRNN_ONCE void draw_own(const Context& context, const MaskValues<typename Context::Real>& mask,
                            int64_t t, char size, typename Context::Real* rows) {
  using Real = typename Context::Real;
  const Range panels = context.panels(size);
  const int64_t all = extent(context.p, size), end = panels.end * context.panel_units;
  const int64_t begin = panels.begin * context.panel_units;
  Real values[kUnitsTogether];
  for (int64_t b = context.share.rows.begin; b < context.share.rows.end; ++b) {
    Real* const row = rows + b * context.job.ld_state;
    const int64_t last = end < all ? end : all;
    for (int64_t first = begin / cells::kUnitsOfDraw * cells::kUnitsOfDraw; first < last;
         first += kUnitsTogether) {
      const int64_t left = last - first, units = left < kUnitsTogether ? left : kUnitsTogether;
      draw(mask, t, b, first, units, values);
      // Others draw the units beside them.
      for (int64_t i = first < begin ? begin - first : 0; i < units; ++i) {
        row[first + i] = values[i];
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
  draw_own(context, mask, 0, context.shape.states[0].size,
           static_cast<Real*>(context.job.noise.operand));
}

// Those of one step; `step`: when it is taken.
template <class Context>
FUSEDRNN_ONCE void draw_masks(const Context& context, int64_t step) {
  using Real = typename Context::Real;
  const Noise& noise = context.p.noise;
  if (!noise.training) return;
  const int64_t t = noise.first_step + context.slots.time(step);
  if (noise.candidate != 0) {
    const cells::DropRate rate = cells::DropRate::of(noise.candidate);
    const MaskValues<Real> mask{noise.seed, cells::row_of_mask(cells::Mask::candidate, noise.run),
                                rate.last_dropped, Real(0),
                                static_cast<typename PlainOf<Real>::type>(rate.scale)};
    draw_own(context, mask, t, 'H', static_cast<Real*>(context.job.noise.candidate));
  }
  for (int s = 0; s < context.shape.state_count; ++s) {
    if (noise.zoneout[s] == 0) continue;
    const MaskValues<Real> mask{noise.seed, cells::row_of_zoneout(s, noise.run),
                                cells::DropRate::of(noise.zoneout[s]).last_dropped, Real(1),
                                Real(0)};
    draw_own(context, mask, t, context.shape.states[s].size,
             static_cast<Real*>(context.job.noise.zoneout[s]));
  }
}

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
