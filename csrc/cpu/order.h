// The order of a call's sequences in memory: see kernels/sequences.h.
#pragma once

#include <cstdint>
#include <vector>

#include "core/problem.h"
#include "cpu/kernels/sequences.h"
#include "cpu/plan.h"

namespace fusedrnn::cpu {

class SequenceOrder {
 public:
  // `flags`: those of all steps, or null. They alone decide, so that every pass over a reserve has
  // the same order.
  SequenceOrder(const uint8_t* flags, int64_t T, int64_t B);
  SequenceOrder(const SequenceOrder&) = delete;
  SequenceOrder& operator=(const SequenceOrder&) = delete;

  // The order, with flags for so many groups of threads, to which sequences go in turn. Of no
  // numbers, where all sequences exist to the last step.
  Order round_robin(int groups);

  // How many live when.
  Profile profile() const;

  // Whether y holds the states of steps after the ends.
  bool shows_padding() const { return shows_padding_; }

 private:
  const uint8_t* const flags_;
  const int64_t T_, B_;
  std::vector<int32_t> numbers_, places_;
  std::vector<int64_t> ends_;
  std::vector<uint8_t> flags_by_row_;
  Order order_;
  bool shows_padding_ = false;
};

}  // namespace fusedrnn::cpu
