// What the steps of the general path leave: in training, where it is that of all steps, it is the
// reserve. Of a lean problem states, operands and flags are; the rest is a call's own, in forward
// as in inference, in backward of a chunk of steps.
//
//   state[s]   [slot][B][ld]  State for h, Real for the others (types as in kernels/format.h)
//   operand    [slot][B][ld]  Row: h as products multiply it; state[0] itself, unless the format is
//                             mixed
//   passed[i]  [step][B][ld]  Row: what stage i multiplies, if that was passed on
//   gates      [step][B][ld]  Real: the projected inputs, then the activated gates
//   extra      [step][B][ld]  Real: saved vectors beyond the gates; where gates are kept
//   statistics [step][B][ld]  Real: mean and scale of each of the cell's norms
//   flags      [step][B]      StepFlag, where there are masks
//   order      numbers and ends [B], first_rows [T+1]; where there are masks
//
// Where the sequences are ordered (cuda/order.h), rows are places, and what is of steps (passed on,
// gates, extra, statistics) is packed: the rows that live. A lean problem's backward packs nothing.
// Slots have room for all: the state of a sequence that has ended, or in reverse not begun, lies in
// the slot of its end.
//
// A slot is a time boundary. In training slot t (forward) or t+1 (reverse) holds the state that
// enters step t, the reset state where a reset says so, and the slot on its other side the state
// that leaves it: T+1 slots, each written once. In inference two slots take turns, and gates exist
// for some steps at a time.
#pragma once

#include "cuda/general/run.h"
#include "cuda/order.h"
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
  enum Kept {
    none,    // inference
    states,  // forward of a lean problem
    chunk,   // its backward: gates, and what stages pass on, of a chunk of steps
    all,
  };

  // Reserves memory: for states in `layout`, for the rest in `own`, which may be the same.
  // `chunk_steps`: how many steps of all sequences have their gates at a time.
  States(const Run& run, Kept kept, int64_t chunk_steps, const Order& order, Layout& layout,
         Layout& own);

  // `own`: where the rest lies.
  void use(void* memory, void* own, bool masked) {
    memory_ = static_cast<char*>(memory);
    own_ = static_cast<char*>(own);
    masked_ = masked;
  }
  // Of a chunk: the first time of which there are gates.
  void enter_chunk(int64_t time) { first_time_ = time; }
  int64_t first_time() const { return first_time_; }

  const Run& run() const { return run_; }
  const Order& order() const { return order_; }
  const Slots& slots() const { return slots_; }
  bool keeps_gates() const { return kept_ >= chunk; }
  int64_t ld_gates() const { return gates_.ld; }
  int64_t ld_extra() const { return extra_.ld; }
  void* memory() const { return memory_; }

  void* state(int s, int64_t slot) const { return at(state_[s], slot); }
  void* operand(int64_t slot) const { return at(operand_, slot); }
  void* passed(int stage, int64_t step) const {
    return own_at(passed_[stage], keeps_gates() ? row(slots_.time(step)) : 0);
  }
  // What a stage multiplies at a step.
  void* multiplied(int stage, int64_t step) const {
    return run_.multiplies_passed(stage) ? passed(stage, step) : operand(slots_.entering(step));
  }
  // The first row of a time, counted from the first one of the chunk.
  int64_t row(int64_t time) const {
    if (!packs()) return (time - first_time_) * run_.problem.B;
    return order_.first_row(time) - order_.first_row(first_time_);
  }
  bool packs() const { return kept_ != chunk; }
  void* gates(int64_t time) const { return own_at(gates_, row(time)); }
  void* extra(int64_t time) const { return keeps_gates() ? own_at(extra_, row(time)) : nullptr; }
  void* statistics(int64_t time) const {
    return own_at(statistics_, keeps_gates() ? row(time) : 0);
  }
  int64_t ld_statistics() const { return statistics_.ld; }
  // Null without masks.
  uint8_t* flags() const {
    return masked_ ? reinterpret_cast<uint8_t*>(memory_) + flags_ : nullptr;
  }
  const uint8_t* flags_at(int64_t step) const {
    return masked_ ? flags() + slots_.time(step) * run_.problem.B : nullptr;
  }
  // Where the order lies; null without masks.
  DeviceOrder order_memory() const {
    if (!masked_) return {};
    const auto at = [&](size_t offset) { return reinterpret_cast<int64_t*>(memory_ + offset); };
    return {at(numbers_), at(ends_), at(first_rows_)};
  }
  // What kernels read of it, from a time on; null without an order.
  DeviceOrder device_order(int64_t time = 0) const {
    if (!order_.any()) return {};
    DeviceOrder order = order_memory();
    order.first_rows += time;
    return order;
  }

 private:
  void* at(const Piece& piece, int64_t slot) const {
    return piece.at(memory_, slot * run_.problem.B);
  }
  void* own_at(const Piece& piece, int64_t row) const { return piece.at(own_, row); }

  const Run& run_;
  const Kept kept_;
  const Order& order_;
  const Slots slots_;
  Piece state_[kMaxStates], operand_, passed_[kMaxStages], gates_, extra_, statistics_;
  size_t flags_, numbers_, ends_, first_rows_;  // offsets
  char *memory_ = nullptr, *own_ = nullptr;
  int64_t first_time_ = 0;
  bool masked_ = false;
};

}  // namespace fusedrnn::cuda
