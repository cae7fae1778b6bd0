// What the steps of the general path leave: in training, where it is that of all steps, it is the
// reserve.
//
//   state[s]   [slot][B][ld_state]  State for h, Real for the others (types as in kernels/format.h)
//   operand    [slot][B][ld_state]  Row: h as products multiply it; state[0] itself, unless the
//                                   format is mixed
//   passed[i]  [step][B][ld]        Row: what stage i multiplies, if it was passed on
//   gates      [step][B][ld_gates]  Real: the projected inputs, then the activated gates
//   extra      [step][B][ld_extra]  Real: saved vectors beyond the gates; training alone
//   flags      [T][B]               StepFlag, where there are masks
//
// A slot is a time boundary. In training slot t (forward) or t+1 (reverse) holds the state that
// enters step t, already cut where a reset says so, and the slot on its other side the state that
// leaves it: T+1 slots, each written once. In inference two slots take turns, and gates exist for
// some steps at a time.
#pragma once

#include "cuda/general/run.h"
#include "cuda/rows.h"
#include "cuda/runtime/layout.h"

namespace fusedrnn::cuda {

struct Slots {
  int64_t T;
  bool reverse, save;

  int64_t time(int64_t step) const { return reverse ? T - 1 - step : step; }
  int64_t entering(int64_t step) const { return save ? time(step) + reverse : step & 1; }
  // The slot after the last step is that which a further step would enter.
  int64_t leaving(int64_t step) const { return entering(step + 1); }
};

class States {
 public:
  // Reserves memory in `layout`. `chunk_steps`: how many steps have their gates at a time.
  States(const Run& run, bool save, int64_t chunk_steps, Layout& layout);

  void use(void* memory, bool masked);

  const Run& run() const { return run_; }
  const Slots& slots() const { return slots_; }
  bool save() const { return slots_.save; }
  int64_t ld_gates() const { return ld_gates_; }
  int64_t ld_extra() const { return ld_extra_; }
  void* memory() const { return memory_; }

  void* state(int s, int64_t slot) const;
  void* operand(int64_t slot) const;
  void* passed(int stage, int64_t step) const;
  // What a stage multiplies at a step.
  void* multiplied(int stage, int64_t step) const;
  void* gates(int64_t row_step) const;  // counted from the first step of the chunk in time
  void* extra(int64_t row_step) const;  // null where nothing is kept
  uint8_t* flags() const;               // null without masks
  const uint8_t* flags_at(int64_t step) const;

 private:
  char* at(size_t offset, int64_t row, int64_t ld, Dtype dtype) const;

  const Run& run_;
  const Slots slots_;
  const int64_t ld_gates_, ld_extra_;
  size_t state_[kMaxStates] = {}, operand_ = 0, passed_[kMaxStages] = {};  // offsets
  size_t gates_ = 0, extra_ = 0, flags_ = 0;
  char* memory_ = nullptr;
  bool masked_ = false;
};

}  // namespace fusedrnn::cuda
