// Dropout of a row between layers, of weights, or of their gradients; and the masks of a walk.
#pragma once

#include "cells/dropout.h"
#include "core/problem.h"
#include "cpu/kernels/context.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Numbers that are drawn at a time, and at how many places in a row.
constexpr int kUnitsTogether = 64, kPlacesTogether = 12;
// How many of these side by side: each waits for the products of one round after another, and where
// words fill few registers there is room for more than one.
constexpr int kDrawsAtOnce = sizeof(Words) == 64 ? 3 : 1;
static_assert(kPlacesTogether % kDrawsAtOnce == 0);

// What all masks of a kind have in common: `dropped` in the place of the numbers that are, else
// `kept`; and the keys of all rounds, which cost nothing where they come from memory.
template <class Real>
struct MaskValues {
  Real dropped, kept;
  uint32_t last_dropped;
  int64_t row;
  uint64_t even_keys[cells::kPhiloxRounds], odd_keys[cells::kPhiloxRounds];

  MaskValues() = default;
  FUSEDRNN_MEMBER MaskValues(uint64_t seed, int64_t its_row, uint32_t last, Real in_their_place,
                             Real else_it)
      : dropped(in_their_place), kept(else_it), last_dropped(last), row(its_row) {
    for (int round = 0; round < cells::kPhiloxRounds; ++round) {
      even_keys[round] = seed & 0xffffffffu;
      odd_keys[round] = seed >> 32;
      seed = cells::next_philox_key(seed);
    }
  }
};

// A sequence at a step, and where its numbers go.
struct Place {
  int64_t t, b, offset;
};

// Of two vectors, the even lanes of both in turn, or the odd ones.
template <int kFirst, int... I>
FUSEDRNN_INLINE Words alternate(Words a, Words b, LaneNumbers<I...>) {
  return __builtin_shufflevector(a, b, (kFirst + I / 2 * 2 + I % 2 * int{sizeof...(I)})...);
}

// What a mask has for a vector of random numbers of 32 bits. By value: what is written here could
// be the mask.
template <class Real>
FUSEDRNN_INLINE void choose(uint32_t last_dropped, Real dropped_value, Real kept_value,
                            Words numbers, Real* to) {
  typedef uint32_t Numbers __attribute__((vector_size(sizeof(Words))));
  constexpr int kCount = sizeof(Words) / sizeof(uint32_t);
  const auto drawn = reinterpret_cast<Numbers>(numbers);
  if constexpr (sizeof(Real) == sizeof(uint32_t)) {
    const auto kept = __builtin_bit_cast(uint32_t, kept_value);
    const auto dropped = __builtin_bit_cast(uint32_t, dropped_value);
    const Numbers chosen = drawn > last_dropped ? Numbers{} + kept : Numbers{} + dropped;
    __builtin_memcpy(to, &chosen, sizeof chosen);
  } else {
    for (int i = 0; i < kCount; ++i) to[i] = drawn[i] > last_dropped ? kept_value : dropped_value;
  }
}

// The masks of kUnitsTogether units from those of a block on, at some places: of each counter the
// numbers of cells::philox(). Units differ in a counter's first word alone and places in the two
// behind it, so much of the first two rounds is the same at all places, or for all units.
template <class Real>
FUSEDRNN_ONCE void draw(const MaskValues<Real>& mask, int64_t block, const Place* places,
                        int64_t count, Real* values) {
  constexpr int kWords = cells::kUnitsOfDraw;
  constexpr int kLanes = sizeof(Words) / sizeof(uint64_t);
  constexpr int kVectors = kUnitsTogether / kWords / kLanes;
  constexpr int kNumbers = 2 * kLanes;  // of a vector
  static_assert(kUnitsTogether % (kWords * kLanes) == 0 && kWords == 4);
  // The first half of a vector's counters in its even lanes, the others in the odd ones: that is
  // where alternate() finds them.
  Words order;
  FUSEDRNN_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    order[i] = static_cast<uint64_t>(i / 2 + i % 2 * (kLanes / 2));
  }
  const Real kept = mask.kept, dropped = mask.dropped;
  const uint32_t last_dropped = mask.last_dropped;
  // The product of the first word, and in the second round of the third.
  const uint64_t last = cells::counter_of(mask.row, 0, 0, 0).words[3] ^ mask.odd_keys[0];
  Words of_first[kVectors], of_third[kVectors];
  FUSEDRNN_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    of_first[v] =
        multiply_words(order + static_cast<uint64_t>(block + v * kLanes), cells::kPhiloxFirst);
    of_third[v] = multiply_words(of_first[v] >> 32 ^ last, cells::kPhiloxSecond);
  }
  for (int64_t i = 0; i < count; i += kDrawsAtOnce) {
    const Place* at[kDrawsAtOnce];
    Words words[kWords][kDrawsAtOnce * kVectors];
    FUSEDRNN_UNROLL
    for (int n = 0; n < kDrawsAtOnce; ++n) {
      at[n] = places + (i + n < count ? i + n : count - 1);
      const cells::Philox counter = cells::counter_of(mask.row, at[n]->t, at[n]->b, 0);
      const uint64_t of_t = uint64_t{counter.words[2]} * cells::kPhiloxSecond;
      const auto second = static_cast<uint32_t>(of_t >> 32 ^ counter.words[1] ^ mask.even_keys[0]);
      const uint64_t of_second = uint64_t{second} * cells::kPhiloxFirst;
      const uint64_t even = of_t ^ mask.even_keys[1], odd = of_second >> 32 ^ mask.odd_keys[1];
      FUSEDRNN_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        words[0][n * kVectors + v] = of_third[v] >> 32 ^ even;
        words[1][n * kVectors + v] = of_third[v];
        words[2][n * kVectors + v] = of_first[v] ^ odd;
        words[3][n * kVectors + v] = Words{} + of_second;
      }
    }
    constexpr int kLast = cells::kPhiloxRounds - 1;
    FUSEDRNN_UNROLL
    for (int round = 2; round < kLast; ++round) {
      FUSEDRNN_UNROLL
      for (int v = 0; v < kDrawsAtOnce * kVectors; ++v) {
        cells::philox_round(mask.even_keys[round], mask.odd_keys[round], words[0][v], words[1][v],
                            words[2][v], words[3][v], [](Words a, uint32_t word) FUSEDRNN_LAMBDA {
                              return multiply_words(a, word);
                            });
      }
    }
    // The last one, and of each counter the numbers side by side: the two halves of a product are
    // such a pair, in each other's place.
    constexpr uint64_t kLow = 0xffffffffu;
    FUSEDRNN_UNROLL
    for (int n = 0; n < kDrawsAtOnce; ++n) {
      Real* const to = values + at[n]->offset;
      FUSEDRNN_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        const int k = n * kVectors + v;
        const Words first = multiply_words(words[0][k], cells::kPhiloxFirst);
        const Words second = multiply_words(words[2][k], cells::kPhiloxSecond);
        const Words lower =
            (second >> 32 | second << 32) ^ ((words[1][k] & kLow) ^ mask.even_keys[kLast]);
        const Words upper =
            (first >> 32 | first << 32) ^ ((words[3][k] & kLow) ^ mask.odd_keys[kLast]);
        constexpr typename FirstLanes<kLanes>::type kAll{};
        choose(last_dropped, dropped, kept, alternate<0>(lower, upper, kAll),
               to + 2 * v * kNumbers);
        choose(last_dropped, dropped, kept, alternate<1>(lower, upper, kAll),
               to + (2 * v + 1) * kNumbers);
      }
    }
  }
}

// A mask of a walk, [steps][B][ld], of the thread's own units.
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

// At most kPlacesTogether of them.
template <class Real>
FUSEDRNN_ONCE void draw_own(const OwnMask<Real>& own, const Place* places, int64_t count) {
  constexpr int64_t kUnits = cells::kUnitsOfDraw;
  for (int64_t first = own.begin / kUnits * kUnits; first < own.end; first += kUnitsTogether) {
    const int64_t left = own.end - first, units = left < kUnitsTogether ? left : kUnitsTogether;
    if (first >= own.begin && units == kUnitsTogether) {
      draw(own.values, first / kUnits, places, count, own.masks + first);
      continue;
    }
    // Others draw the units beside them.
    alignas(64) Real values[kPlacesTogether * kUnitsTogether];
    Place within[kPlacesTogether];
    for (int64_t i = 0; i < count; ++i) within[i] = {places[i].t, places[i].b, i * kUnitsTogether};
    draw(own.values, first / kUnits, within, count, values);
    const int64_t begin = first < own.begin ? own.begin - first : 0;
    for (int64_t i = 0; i < count; ++i) {
      Real* const to = own.masks + places[i].offset + first;
      for (int64_t k = begin; k < units; ++k) to[k] = values[i * kUnitsTogether + k];
    }
  }
}

// Some masks at places of which each comes by itself.
template <class Real>
class PlacesOf {
 public:
  FUSEDRNN_MEMBER PlacesOf(const OwnMask<Real>* masks, int count) : masks_(masks), count_(count) {}

  FUSEDRNN_MEMBER void add(const Place& place) {
    places_[number_++] = place;
    if (number_ == kPlacesTogether) draw_all();
  }
  // Those that are left.
  FUSEDRNN_MEMBER void draw_all() {
    for (int i = 0; i < count_ && number_ > 0; ++i) draw_own(masks_[i], places_, number_);
    number_ = 0;
  }

 private:
  const OwnMask<Real>* masks_;
  int count_;
  int64_t number_ = 0;
  Place places_[kPlacesTogether];
};

// That of what w_hh multiplies, of all steps.
template <class Context>
FUSEDRNN_ONCE void draw_operand_mask(const Context& context) {
  using Real = typename Context::Real;
  const Noise& noise = context.p.noise;
  if (!noise.training || noise.state == 0) return;
  const cells::DropRate rate = cells::DropRate::of(noise.state);
  const MaskValues<Real> values{noise.seed, cells::row_of_mask(cells::Mask::state, noise.run),
                                rate.last_dropped, Real(0),
                                static_cast<typename PlainOf<Real>::type>(rate.scale)};
  const OwnMask<Real> mask =
      own_mask(context, values, context.shape.states[0].size, context.job.noise.operand);
  PlacesOf<Real> places(&mask, 1);
  for (int64_t row = 0; row < context.sequences.count; ++row) {
    places.add({0, context.sequences.number(row), context.state_offset(0, row)});
  }
  places.draw_all();
}

// Those of each step of a walk, found once for it: small steps notice it. They are drawn of some
// steps at once.
template <class Context>
class StepMasks {
 public:
  using Real = typename Context::Real;

  // `stride`: from a step to that which is taken next, up to `end`.
  FUSEDRNN_MEMBER StepMasks(const Context& context, int64_t stride, int64_t end)
      : context_(context), stride_(stride), end_(end) {
    if (context.p.noise.training) find();
  }

  // Before a step is taken: maps find its masks then in the arrays of the stages, which begin with
  // those of the first step that is drawn.
  template <class Arrays>
  FUSEDRNN_MEMBER void enter(int64_t step, Arrays* arrays) {
    if (count_ == 0) return;
    int64_t place = (step - first_) * stride_;
    if (drawn_ == 0 || place >= drawn_) {
      draw_from(step);
      place = 0;
    }
    const int64_t numbers = (place - place_) * context_.p.B * context_.job.ld_state;
    place_ = place;
    for (int i = 0; i < context_.shape.stage_count; ++i) {
      if (arrays[i].candidate.data != nullptr) arrays[i].candidate.data += numbers;
      for (int s = 0; s < context_.shape.state_count; ++s) {
        if (arrays[i].zoneout[s].data != nullptr) arrays[i].zoneout[s].data += numbers;
      }
    }
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

  FUSEDRNN_ONCE void draw_from(int64_t step) {
    const int64_t left = (end_ - step) * stride_, most = context_.job.noise.steps;
    first_ = step;
    drawn_ = left < most ? left : most;
    PlacesOf<Real> places(each_, count_);
    for (int64_t i = 0; i < drawn_; ++i, step += stride_) {
      const int64_t t = context_.p.noise.first_step + context_.slots.time(step);
      const Range rows = context_.living(step);
      for (int64_t row = rows.begin; row < rows.end; ++row) {
        places.add({t, context_.sequences.number(row), context_.state_offset(i, row)});
      }
    }
    places.draw_all();
  }

  const Context& context_;
  const int64_t stride_, end_;
  int64_t first_ = 0, drawn_ = 0;  // steps that are drawn
  int64_t place_ = 0;              // of that which the arrays show
  int count_ = 0;
  OwnMask<Real> each_[1 + kMaxStates];
};

// At most kUnitsTogether of those that are left of a row; what is dropped is zero whatever it was.
template <class V, class Edge>
FUSEDRNN_INLINE void drop_units(const Edge* from, const typename V::real* factors, int64_t left,
                                Edge* to) {
  for (int64_t unit = 0; unit < kUnitsTogether && unit < left; unit += V::width) {
    const V factor = V::load(factors + unit);
    const auto dropped = factor <= V::zero();
    if (left - unit >= V::width) {
      select(dropped, V::zero(), V::load(from + unit) * factor).store(to + unit);
    } else {
      const int lanes = static_cast<int>(left - unit);
      select(dropped, V::zero(), V::load(from + unit, lanes) * factor).store(to + unit, lanes);
    }
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
  int64_t t = begin / call.B, b = begin % call.B;
  alignas(64) Real factors[kPlacesTogether * kUnitsTogether];
  Place places[kPlacesTogether];
  const Edge* from[kPlacesTogether];
  Edge* to[kPlacesTogether];
  for (int64_t row = begin; row < end; row += kPlacesTogether) {
    const int64_t left = end - row, count = left < kPlacesTogether ? left : kPlacesTogether;
    for (int64_t i = 0; i < count; ++i) {
      const auto at = [&](const Sequence& s) {
        return static_cast<Edge*>(s.data) + t * s.t_stride + b * s.b_stride;
      };
      places[i] = {call.first_step + t, b, i * kUnitsTogether};
      from[i] = at(call.from);
      to[i] = at(call.to);
      if (++b == call.B) b = 0, ++t;
    }
    for (int64_t first = 0; first < call.n; first += kUnitsTogether) {
      draw(mask, first / cells::kUnitsOfDraw, places, count, factors);
      for (int64_t i = 0; i < count; ++i) {
        drop_units<V>(from[i] + first, factors + i * kUnitsTogether, call.n - first, to[i] + first);
      }
    }
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
