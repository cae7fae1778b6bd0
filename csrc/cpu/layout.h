// Where the memory of a call lies. Each part first reserves its pieces of an arena, then, when the
// arena has memory, points a job at them.
#pragma once

#include <cstdint>

#include "core/memory.h"
#include "cpu/kernels/job.h"
#include "cpu/plan.h"

namespace fusedrnn::cpu {

size_t count(int64_t a, int64_t b = 1, int64_t c = 1);  // a*b*c; throws std::bad_alloc

// The stride of rows of `n` numbers of at least `bytes`: whole cache lines, so that two threads
// never write into one, and at least a line more than the numbers take, because strides of powers
// of two would share cache sets and some kernels read a little beyond a row.
constexpr int64_t kRowUnit = 32;  // at least two vectors of any instruction set
inline int64_t row_stride(int64_t n, int bytes) {
  constexpr int64_t kLineBytes = 64;
  return divide_up(n, kRowUnit) * kRowUnit + kLineBytes / bytes;
}

// Weights and biases as the kernels read them.
class PackedLayout {
 public:
  PackedLayout(Arena& arena, const CellShape& shape, int64_t I, int64_t H, bool weights);
  void point(const Arena& arena, ForwardJob& job) const;

 private:
  int phases_;
  bool weights_;
  int input_, recurrent_[kMaxPhases], bias_ih_, bias_hh_;
  int scales_[2], starts_[2];
};

// States and gates: in training those of all steps, which a tape keeps.
class StatesLayout {
 public:
  StatesLayout(Arena& arena, const CellShape& shape, const Problem& problem, bool save);
  void point(const Arena& arena, ForwardJob& job) const;

 private:
  int phases_, states_;
  bool mixed_;
  int input_[kMaxPhases], state_[kMaxStates], saved_;
};

// What the threads of a call need while it runs.
class ScratchLayout {
 public:
  // `stream`: weights are packed a few panels at a time.
  ScratchLayout(Arena& arena, const CellShape& shape, const Problem& problem, const Plan& plan,
                bool stream);
  void point(const Arena& arena, ForwardJob& job) const;

 private:
  bool staged_, stream_;
  size_t projection_bytes_, staged_bytes_, quantised_bytes_, scales_bytes_, stream_bytes_;
  int64_t ld_staged_;
  int projection_piece_, staged_piece_, quantised_piece_, scales_piece_, stream_piece_;
};

}  // namespace fusedrnn::cpu
