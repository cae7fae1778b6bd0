#include "cuda/general/backward_walk.h"

#include "cuda/kernels/copy.h"

namespace fusedrnn::cuda {

BackwardWalk::BackwardWalk(const BackwardCall& call, const States& states, const uint8_t* flags,
                           Layout& layout)
    : call_(call),
      p_(call.problem),
      states_(states),
      flags_(flags),
      ld_delta_(row_stride(states.cell().deltas * p_.H)),
      ld_product_(row_stride(p_.H)),
      w_hh_(call.w_hh, states.cell().gates * p_.H, p_.H, states.unit().edge, states.unit().delta) {
  const Unit& unit = states.unit();
  delta_ = layout.reserve({p_.T, p_.B, ld_delta_}, item_bytes(unit.delta));
  product_ = layout.reserve({p_.B, ld_product_}, item_bytes(unit.real));
  for (int s = 0; s < states.cell().states; ++s) {
    carry_[s] = layout.reserve({p_.B, p_.H}, item_bytes(unit.real));
  }
  w_hh_.reserve(layout);
}

void BackwardWalk::launch(const Products& products, cudaStream_t stream) const {
  w_hh_.copy(memory_, stream);
  begin_carry(stream);
  for (int64_t step = p_.T - 1; step >= 0; --step) take_step(products, step, stream);
  end_carry(products, stream);
}

// carry = the gradients of the states after the last step.
void BackwardWalk::begin_carry(cudaStream_t stream) const {
  for (int s = 0; s < states_.cell().states; ++s) {
    Copy copy;
    copy.B = p_.B;
    copy.n = p_.H;
    copy.from = {call_.dstate_n[s].data, 0, call_.dstate_n[s].stride};
    copy.to = {carry(s), 0, p_.H};
    copy_rows(copy, states_.unit().edge, states_.unit().real, stream);
  }
}

void BackwardWalk::take_step(const Products& products, int64_t step, cudaStream_t stream) const {
  const int last = states_.cell().phases - 1;
  for (int phase = last; phase >= 0; --phase) {
    if (phase < last) {
      multiply_deltas(products, phase + 1, states_.slots().time(step));
    } else if (step + 1 < p_.T) {
      multiply_deltas(products, 0, states_.slots().time(step + 1));
    }
    states_.kernels().backward[phase](arguments(phase, step), stream);
  }
}

// The gradient of what phase `source` multiplied, from the deltas of its gates at `time`.
void BackwardWalk::multiply_deltas(const Products& products, int source, int64_t time) const {
  const CellShape& cell = states_.cell();
  const size_t item = item_bytes(states_.unit().delta);
  const int first = cell.phase_first[source];
  const Matrix w = w_hh_.place(memory_);
  products.run({p_.B, p_.H, cell.phase_gates[source] * p_.H},
               {advance(delta_at(time), cell.recurrent_delta[first] * p_.H, item), ld_delta_},
               {advance(w.data, first * p_.H * w.stride, item), w.stride},
               {memory_ + product_, ld_product_}, states_.unit().real);
}

BackwardStep BackwardWalk::arguments(int phase, int64_t step) const {
  const Slots& slots = states_.slots();
  const int64_t time = slots.time(step);
  const bool has_product = phase + 1 < states_.cell().phases || step + 1 < p_.T;
  BackwardStep s{};
  s.B = p_.B;
  s.H = p_.H;
  s.ld_product = ld_product_;
  s.ld_gates = states_.ld_gates();
  s.ld_extra = states_.ld_extra();
  s.ld_state = states_.ld_state();
  s.ld_delta = ld_delta_;
  s.product = has_product ? memory_ + product_ : nullptr;
  s.gates = states_.gates(time);
  s.extra = states_.extra(time);
  for (int i = 0; i < states_.cell().states; ++i) {
    s.entering[i] = states_.state(i, slots.entering(step));
    s.carry[i] = carry(i);
  }
  s.delta = delta_at(time);
  if (call_.dy.data != nullptr) {
    s.dy = advance(call_.dy.data, time * call_.dy.t_stride, item_bytes(states_.unit().edge));
  }
  s.dy_stride = call_.dy.b_stride;
  s.flags = flags_at(step);
  s.following_flags = step + 1 < p_.T ? flags_at(step + 1) : nullptr;
  return s;
}

// The gradients of the initial states.
void BackwardWalk::end_carry(const Products& products, cudaStream_t stream) const {
  const Unit& unit = states_.unit();
  if (call_.dstate_0[0].data != nullptr) {
    multiply_deltas(products, 0, states_.slots().time(0));
    InitialGradient gradient{};
    gradient.B = p_.B;
    gradient.n = p_.H;
    gradient.carry = carry(0);
    gradient.product = memory_ + product_;
    gradient.ld_product = ld_product_;
    gradient.flags = flags_at(0);
    gradient.to = call_.dstate_0[0];
    initial_gradient(gradient, unit.edge, stream);
  }
  for (int s = 1; s < states_.cell().states; ++s) {
    if (call_.dstate_0[s].data == nullptr) continue;
    Copy copy;
    copy.B = p_.B;
    copy.n = p_.H;
    copy.from = {carry(s), 0, p_.H};
    copy.to = {call_.dstate_0[s].data, 0, call_.dstate_0[s].stride};
    copy_rows(copy, unit.real, unit.edge, stream);
  }
}

void* BackwardWalk::delta_at(int64_t time) const {
  return advance(memory_ + delta_, time * p_.B * ld_delta_, item_bytes(states_.unit().delta));
}

const uint8_t* BackwardWalk::flags_at(int64_t step) const {
  return flags_ == nullptr ? nullptr : flags_ + states_.slots().time(step) * p_.B;
}

}  // namespace fusedrnn::cuda
