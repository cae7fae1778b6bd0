// States and gates of the general path: in training those of all steps, which the tape keeps.
//
//   state[0]   [slot][B][ld_state]  State: h           (types as in kernels/format.h)
//   state[1]   [slot][B][ld_state]  Real: c
//   input[0]   [slot][B][ld_state]  Row: what phase 0 multiplies; state[0] itself, unless the
//                                   format is mixed
//   input[1]   [step][B][ld_state]  Row: what phase 1 multiplies
//   gates      [step][B][ld_gates]  Real: the projected inputs, then the activated gates
//   extra      [step][B][ld_extra]  Real: saved vectors beyond the gates; training alone
//
// A slot is a time boundary. In training slot t (forward) or t+1 (reverse) holds the state that
// enters step t, already cut where a reset says so, and the slot on its other side the state that
// leaves it: T+1 slots, each written once. In inference two slots take turns, and gates exist for
// some steps at a time.
#pragma once

#include "cuda/kernels/step.h"
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
  States(const Problem& problem, const Unit& unit, bool save, int64_t chunk_steps, Layout& layout);

  void use(char* memory) { memory_ = memory; }

  const CellShape& cell() const { return kernels().shape; }
  const CellKernels& kernels() const { return unit_.cells[problem_.cell]; }
  const Unit& unit() const { return unit_; }
  const Problem& problem() const { return problem_; }
  const Slots& slots() const { return slots_; }
  bool save() const { return slots_.save; }
  int64_t ld_state() const { return ld_state_; }
  int64_t ld_gates() const { return ld_gates_; }
  int64_t ld_extra() const { return ld_extra_; }

  void* state(int s, int64_t slot) const;
  // What a phase multiplies at a step.
  void* input(int phase, int64_t step) const;
  void* input_slot(int phase, int64_t slot) const;
  void* gates(int64_t row_step) const;  // counted from the first step of the chunk in time
  void* extra(int64_t row_step) const;  // null where nothing is kept

 private:
  char* at(size_t offset, int64_t row, int64_t ld, Dtype dtype) const;

  Problem problem_;
  const Unit& unit_;
  Slots slots_;
  int64_t ld_state_, ld_gates_, ld_extra_;
  size_t state_[kMaxStates] = {}, input_[kMaxPhases] = {}, gates_ = 0, extra_ = 0;
  char* memory_ = nullptr;
};

}  // namespace fusedrnn::cuda
