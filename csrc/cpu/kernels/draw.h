// Masks of dropout and zoneout (cells/dropout.h), drawn for many units and places at a time.
#pragma once

#include "cpu/kernels/dual.h"
#include "cpu/kernels/row_kernels.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// How many places side by side: each waits for the products of one round after another, and where
// words fill few registers there is room for more than one.
constexpr int kDrawsAtOnce = sizeof(Words) == 64 ? 3 : 1;
static_assert(kPlacesTogether % kDrawsAtOnce == 0);

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
FUSEDRNN_ONCE void draw_units(const MaskValues<Real>& mask, int64_t block, const Place* places,
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

// At most kPlacesTogether of them.
template <class Real>
FUSEDRNN_ONCE void draw_own(const OwnMask<Real>& own, const Place* places, int64_t count) {
  constexpr int64_t kUnits = cells::kUnitsOfDraw;
  for (int64_t first = own.begin / kUnits * kUnits; first < own.end; first += kUnitsTogether) {
    const int64_t left = own.end - first, units = left < kUnitsTogether ? left : kUnitsTogether;
    if (first >= own.begin && units == kUnitsTogether) {
      draw_units(own.values, first / kUnits, places, count, own.masks + first);
      continue;
    }
    // Others draw the units beside them.
    alignas(64) Real values[kPlacesTogether * kUnitsTogether];
    Place within[kPlacesTogether];
    for (int64_t i = 0; i < count; ++i) within[i] = {places[i].t, places[i].b, i * kUnitsTogether};
    draw_units(own.values, first / kUnits, within, count, values);
    const int64_t begin = first < own.begin ? own.begin - first : 0;
    for (int64_t i = 0; i < count; ++i) {
      Real* const to = own.masks + places[i].offset + first;
      for (int64_t k = begin; k < units; ++k) to[k] = values[i * kUnitsTogether + k];
    }
  }
}

template <class Real>
FUSEDRNN_ONCE void begin_mask(uint64_t seed, int64_t row, double p, bool stays,
                              MaskValues<Real>& mask) {
  const cells::DropRate rate = cells::DropRate::of(p);
  mask.dropped = stays ? Real(1) : Real(0);
  mask.kept = stays ? Real(0) : Real(static_cast<typename PlainOf<Real>::type>(rate.scale));
  mask.last_dropped = rate.last_dropped;
  mask.row = row;
  for (int round = 0; round < cells::kPhiloxRounds; ++round) {
    mask.even_keys[round] = seed & 0xffffffffu;
    mask.odd_keys[round] = seed >> 32;
    seed = cells::next_philox_key(seed);
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
