// Dropout (Srivastava et al. 2014): an element of a row between layers is zero with probability p,
// and else divided by 1 - p. Which elements, follows from random numbers that depend on a seed and
// on an element's place alone, so that backward draws the masks of forward again, and any number of
// threads or another engine the same ones: Philox4x32-10, a bijection of counters for each key
// (J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2,
// 3", SC 2011).
#pragma once

#include <cstdint>

#include "cells/cell.h"

namespace fusedrnn::cells {

struct Philox {
  uint32_t words[4];
};

constexpr uint32_t kPhiloxFirst = 0xD2511F53u, kPhiloxSecond = 0xCD9E8D57u;

// One of its rounds, of the words of a counter, or of some counters side by side: Word has 64 bits
// of each, of which the lower 32 count. multiply(word, constant) is the product of these alone. The
// two words of the key are numbers of 64 bits for their sake.
template <class Word, class Multiply>
FUSEDRNN_CELL_FN void philox_round(uint64_t even_key, uint64_t odd_key, Word& a, Word& b, Word& c,
                                   Word& d, const Multiply& multiply) {
  const Word first = multiply(a, kPhiloxFirst), second = multiply(c, kPhiloxSecond);
  a = (second >> 32) ^ b ^ even_key;
  b = second;
  c = (first >> 32) ^ d ^ odd_key;
  d = first;
}

constexpr int kPhiloxRounds = 10;

// The key of the round after; its words are counted apart.
FUSEDRNN_CELL_FN uint64_t next_philox_key(uint64_t key) {
  const uint32_t even = static_cast<uint32_t>(key) + 0x9E3779B9u;
  const uint32_t odd = static_cast<uint32_t>(key >> 32) + 0xBB67AE85u;
  return uint64_t{odd} << 32 | even;
}

// The numbers of one counter.
FUSEDRNN_CELL_FN Philox philox(uint64_t key, Philox counter) {
  uint64_t words[4];
  for (int k = 0; k < 4; ++k) words[k] = counter.words[k];
  for (int round = 0; round < kPhiloxRounds; ++round) {
    philox_round(key & 0xffffffffu, key >> 32, words[0], words[1], words[2], words[3],
                 [](uint64_t a, uint32_t b) { return uint64_t{static_cast<uint32_t>(a)} * b; });
    key = next_philox_key(key);
  }
  for (int k = 0; k < 4; ++k) counter.words[k] = static_cast<uint32_t>(words[k]);
  return counter;
}

constexpr int kUnitsOfDraw = 4;

// Where the numbers of units kUnitsOfDraw * block and those behind it are, of sequence b at step t
// in a row of a network; the key is the call's seed. Of each number the lower 32 bits.
FUSEDRNN_CELL_FN Philox counter_of(int64_t row, int64_t t, int64_t b, int64_t block) {
  return {{static_cast<uint32_t>(block), static_cast<uint32_t>(b), static_cast<uint32_t>(t),
           static_cast<uint32_t>(row)}};
}

// What a mask is of: the upper bits of a counter's row, whose others number the row or, of all but
// the first, the run. Of a weight t is 0, b the matrix's row; of the state that products multiply t
// is 0; of zoneout there is one for each state.
enum class Mask : int64_t { between_runs, weights, zoneout, candidate = 6, state };
constexpr int kMaskShift = 24;
FUSEDRNN_CELL_HOST int64_t row_of_mask(Mask mask, int64_t run) {
  return static_cast<int64_t>(mask) << kMaskShift | run;
}

FUSEDRNN_CELL_HOST int64_t row_of_zoneout(int state, int64_t run) {
  return row_of_mask(Mask::zoneout, run) + (int64_t{state} << kMaskShift);
}

// A rate p, 0 < p <= 1, as loops need it.
struct DropRate {
  uint32_t last_dropped;  // an element is kept where its number is above
  double scale;           // of what is kept, where any is

  // Numbers below p * 2^32 are dropped: 0 at least, also where p is a denormal that this thread
  // takes for zero, and at most all.
  FUSEDRNN_CELL_HOST DropRate of(double p) {
    const double below = p * 0x1p32;
    const auto whole = static_cast<uint64_t>(below);  // rounded down
    const bool drops_whole = whole == 0 || static_cast<double>(whole) < below;
    return {static_cast<uint32_t>(drops_whole ? whole : whole - 1), 1 / (1 - p)};
  }
};

// Zoneout (Krueger et al. 2016): what leaves a step where the share `stays` of a state is what
// entered it, all or nothing where it was drawn; nothing comes through that has no share.
template <class V>
FUSEDRNN_CELL_FN V zoned(V stays, V prev, V next) {
  const V one = V::set(1), mixed = fma(stays, prev, (one - stays) * next);
  return select(stays <= V::zero(), next, select(one <= stays, prev, mixed));
}

// The shares of the gradient of what leaves the step: of what the cell computed, and of what
// entered.
template <class V>
FUSEDRNN_CELL_FN V gradient_of_computed(V stays, V d) {
  return select(V::set(1) <= stays, V::zero(), (V::set(1) - stays) * d);
}
template <class V>
FUSEDRNN_CELL_FN V gradient_of_stayed(V stays, V d) {
  return select(stays <= V::zero(), V::zero(), stays * d);
}

}  // namespace fusedrnn::cells
