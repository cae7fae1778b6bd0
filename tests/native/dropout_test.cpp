// cells/dropout.h: the generator by its published answers, and what a rate is made into.
#include "cells/dropout.h"

#include <cmath>

#include "check.h"

namespace {

using fusedrnn::cells::DropRate;
using fusedrnn::cells::Philox;

struct Answer {
  uint64_t key;
  Philox counter, numbers;
};

// Random123's kat_vectors of philox4x32, 10 rounds.
constexpr Answer kAnswers[] = {
    {0, {{0, 0, 0, 0}}, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
    {0xffffffffffffffff,
     {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}},
     {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
    {0x299f31d0a4093822,
     {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
     {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}},
};

void test_known_answers() {
  for (const Answer& answer : kAnswers) {
    const Philox got = fusedrnn::cells::philox(answer.key, answer.counter);
    for (int i = 0; i < 4; ++i) CHECK(got.words[i] == answer.numbers.words[i]);
  }
}

// Row, step, sequence and block each have a word of the counter, the row the last.
void test_places() {
  const Philox got = fusedrnn::cells::counter_of(0x03707344, 0x7'13198a2e, 0x85a308d3, 0x243f6a88);
  for (int i = 0; i < 4; ++i) CHECK(got.words[i] == kAnswers[2].counter.words[i]);
}

// A number is dropped where it is below p * 2^32.
void test_rates() {
  const double rates[] = {1e-300, 0x1p-40, 0x1p-33, 0x1p-32,     0x1.8p-32,   0.25,
                          1. / 3, 0.5,     0.9,     1 - 0x1p-32, 1 - 0x1p-40, 1 - 0x1p-53};
  for (const double p : rates) {
    const DropRate rate = DropRate::of(p);
    const double last = rate.last_dropped, next = last + 1;
    CHECK(last < p * 0x1p32);
    CHECK(next >= p * 0x1p32);
    CHECK(rate.scale == 1 / (1 - p));
    CHECK(std::isfinite(rate.scale));
  }
}

}  // namespace

int main() {
  test_known_answers();
  test_places();
  test_rates();
  return check::result();
}
