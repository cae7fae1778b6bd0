// What a thread goes through: its shares of the work, and time.
#pragma once

#include "cpu/kernels/job.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

struct Range {
  int64_t begin, end;

  FUSEDRNN_MEMBER int64_t size() const { return end - begin; }
};

// Part `index` of `count` when `total` is cut evenly.
FUSEDRNN_INLINE Range share(int64_t total, int64_t count, int64_t index) {
  if (count == 1) return {0, total};  // small steps notice a division
  const int64_t part = total / count, rest = total % count;
  const int64_t begin = part * index + (index < rest ? index : rest);
  return {begin, begin + part + (index < rest)};
}

// Its place in the grid.
struct Share {
  int thread, threads;  // of all
  int group;            // of the threads that share its sequences
  int part, parts;      // of them
  int groups;

  FUSEDRNN_MEMBER Share(const Grid& grid, int number)
      : thread(number),
        threads(grid.row_groups * grid.unit_groups),
        group(number / grid.unit_groups),
        part(number % grid.unit_groups),
        parts(grid.unit_groups),
        groups(grid.row_groups) {}

  // Of things that the threads of its group share out, and of those that all do.
  FUSEDRNN_MEMBER Range of_group(int64_t total) const { return share(total, parts, part); }
  FUSEDRNN_MEMBER Range of_all(int64_t total) const { return share(total, threads, thread); }

  // Its sequences.
  FUSEDRNN_MEMBER Sequences sequences(const Order& order, const Problem& p) const {
    const Range rows = share(p.B, groups, group);
    if (order.numbers == nullptr) return {order, p.T, rows.begin, 1, rows.size(), rows.begin};
    return {order, p.T, group, groups, rows.size(), rows.begin};
  }
};

FUSEDRNN_INLINE int64_t blocks_of(int64_t total, int64_t size) { return (total + size - 1) / size; }

// Weights larger than a cache are read back and forth: what the last step read last is still there.
FUSEDRNN_INLINE bool turns(int64_t step) { return (step & 1) != 0; }

// Time in the order of processing, and where the states that enter and leave a step lie.
//
// In training slot t (forward) or t+1 (reverse) holds the state that enters step t, the reset state
// where a reset says so, and the slot on its other side the state that leaves it; so T+1 slots,
// each written once. In inference two slots take turns.
struct Slots {
  int64_t T;
  bool reverse, save;

  FUSEDRNN_MEMBER int64_t time(int64_t step) const { return reverse ? T - 1 - step : step; }
  FUSEDRNN_MEMBER int64_t entering(int64_t step) const {
    return save ? time(step) + reverse : step & 1;
  }
  // The slot after the last step is that which a further step would enter.
  FUSEDRNN_MEMBER int64_t leaving(int64_t step) const { return entering(step + 1); }
  // Buffers with one slot a step (gates, what stages pass on).
  FUSEDRNN_MEMBER int64_t of_step(int64_t step) const { return save ? time(step) : 0; }
};

// A step's flags by row; null: every step is valid and shown, none cut.
FUSEDRNN_INLINE bool is_valid(const uint8_t* flags, int64_t row) {
  return flags == nullptr || (flags[row] & kValid) != 0;
}
FUSEDRNN_INLINE bool is_shown(const uint8_t* flags, int64_t row) {
  return flags == nullptr || (flags[row] & kShown) != 0;
}
FUSEDRNN_INLINE bool is_cut(const uint8_t* flags, int64_t row) {
  return flags != nullptr && (flags[row] & kCut) != 0;
}
// Whether the step multiplies the state that enters it. Where it does not, the product of its
// deltas is no gradient: not even zero, where a weight is NaN.
FUSEDRNN_INLINE bool is_multiplied(const uint8_t* flags, int64_t row) {
  return flags == nullptr || (flags[row] & (kValid | kCut)) == kValid;
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
