// Dropout of a row between layers, of weights, or of their gradients.
#pragma once

#include "cells/dropout.h"
#include "core/problem.h"
#include "cpu/kernels/map_support.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Counters side by side, so that the compiler makes vectors of them.
constexpr int64_t kDrawsTogether = 32;
constexpr int64_t kUnitsTogether = kDrawsTogether * cells::kUnitsOfDraw;

// What `units` units from unit `first` on are multiplied by, 0 where they are dropped.
template <class Real>
FUSEDRNN_INLINE void draw_factors(const DropCall& call, const cells::DropRate& rate, int64_t t,
                                  int64_t b, int64_t first, int64_t units, Real* factors) {
  uint32_t words[cells::kUnitsOfDraw][kDrawsTogether];
  const int64_t draws = (units + cells::kUnitsOfDraw - 1) / cells::kUnitsOfDraw;
  for (int64_t i = 0; i < draws; ++i) {
    const cells::Philox counter =
        cells::counter_of(call.row, call.first_step + t, b, first / cells::kUnitsOfDraw + i);
    for (int word = 0; word < cells::kUnitsOfDraw; ++word) words[word][i] = counter.words[word];
  }
  uint64_t key = call.seed;
  for (int round = 0; round < cells::kPhiloxRounds; ++round) {
    for (int64_t i = 0; i < draws; ++i) {
      cells::philox_round(key, words[0][i], words[1][i], words[2][i], words[3][i]);
    }
    key = cells::next_philox_key(key);
  }
  const auto scale = static_cast<Real>(rate.scale);
  for (int64_t i = 0; i < draws; ++i) {
    for (int word = 0; word < cells::kUnitsOfDraw; ++word) {
      factors[i * cells::kUnitsOfDraw + word] =
          words[word][i] > rate.last_dropped ? scale : Real(0);
    }
  }
}

// This thread's share of the T * B rows.
template <class F>
void run_drop(const DropCall& call, int thread, int threads) {
  using V = typename F::V;
  using Edge = typename F::Edge;
  const cells::DropRate rate = cells::DropRate::of(call.rate);
  const int64_t rows = call.T * call.B;
  const int64_t begin = rows * thread / threads, end = rows * (thread + 1) / threads;
  typename F::Real factors[kUnitsTogether + V::width] = {};  // whole vectors are read
  for (int64_t row = begin; row < end; ++row) {
    const int64_t t = row / call.B, b = row % call.B;
    const auto at = [&](const Sequence& s) {
      return static_cast<Edge*>(s.data) + t * s.t_stride + b * s.b_stride;
    };
    const Edge* const from = at(call.from);
    Edge* const to = at(call.to);
    for (int64_t first = 0; first < call.n; first += kUnitsTogether) {
      const int64_t left = call.n - first, units = left < kUnitsTogether ? left : kUnitsTogether;
      draw_factors(call, rate, t, b, first, units, factors);
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
