#include "cuda/general/backward_walk.h"

#include <algorithm>

#include "cuda/kernels/copy.h"

namespace fusedrnn::cuda {

BackwardWalk::BackwardWalk(const BackwardCall& call, const States& states, Layout& layout)
    : call_(call),
      p_(call.problem),
      states_(states),
      run_(states.run()),
      ld_delta_(row_stride(run_.delta_columns())) {
  const Unit& unit = run_.unit;
  delta_ = layout.reserve({p_.T, p_.B, ld_delta_}, item_bytes(unit.delta));
  int64_t deepest = 0;
  for (const auto& [operand, product] : run_.cell.stages) {
    if (operand == cells::Operand::none) continue;
    deepest = std::max(deepest, run_.shape(product).depth);
    const cells::Parameter& matrix = run_.cell.parameters[product.weights];
    weights_[product.weights] =
        StagedMatrix(call.parameters[product.weights], run_.size(matrix.rows),
                     run_.size(matrix.columns), unit.edge, unit.delta);
  }
  product_ = layout.reserve({p_.B, row_stride(deepest)}, item_bytes(unit.real));
  for (int s = 0; s < run_.states(); ++s) {
    carry_[s] = layout.reserve({p_.B, run_.state_size(s)}, item_bytes(unit.real));
  }
  for (StagedMatrix& weights : weights_) weights.reserve(layout);
}

void BackwardWalk::launch(const Products& products, cudaStream_t stream) const {
  for (const StagedMatrix& weights : weights_) weights.copy(memory_, stream);
  begin_carry(stream);
  for (int64_t step = p_.T - 1; step >= 0; --step) take_step(products, step, stream);
  end_carry(products, stream);
}

// carry = the gradients of the states after the last step.
void BackwardWalk::begin_carry(cudaStream_t stream) const {
  for (int s = 0; s < run_.states(); ++s) {
    Copy copy;
    copy.B = p_.B;
    copy.n = run_.state_size(s);
    copy.from = {call_.dstate_n[s].data, 0, call_.dstate_n[s].stride};
    copy.to = {carry(s), 0, copy.n};
    copy_rows(copy, run_.unit.edge, run_.unit.real, stream);
  }
}

void BackwardWalk::take_step(const Products& products, int64_t step, cudaStream_t stream) const {
  for (int stage = run_.stages() - 1; stage >= 0; --stage) {
    const void* const product = gradient_behind(products, stage, step);
    run_.kernels.backward[stage](arguments(stage, step, product), stream);
  }
}

// What comes to a stage through products: the gradient of what it passed on, or, to the last one,
// that of h from the step that follows. Null where nothing comes.
const void* BackwardWalk::gradient_behind(const Products& products, int stage, int64_t step) const {
  if (stage + 1 == run_.stages()) {
    return step + 1 < p_.T ? gradient_of_h(products, step + 1) : nullptr;
  }
  if (run_.cell.stages[stage + 1].operand != cells::Operand::passed) return nullptr;
  return multiply_deltas(products, stage + 1, step, false);
}

// The gradient of the h that entered a step, as far as it goes through products.
const void* BackwardWalk::gradient_of_h(const Products& products, int64_t step) const {
  const void* gradient = nullptr;
  for (int stage = 0; stage < run_.stages(); ++stage) {
    if (run_.cell.stages[stage].operand != cells::Operand::h) continue;
    gradient = multiply_deltas(products, stage, step, gradient != nullptr);
  }
  return gradient;
}

// The gradient of what a stage multiplied at a step.
const void* BackwardWalk::multiply_deltas(const Products& products, int stage, int64_t step,
                                          bool accumulate) const {
  const cells::Product& product = run_.cell.stages[stage].product;
  const Run::Shape shape = run_.shape(product);
  const Matrix w = weights_[product.weights].place(memory_);
  products.run({p_.B, shape.depth, shape.rows},
               {delta_at(run_.cell.first_delta[stage], step), ld_delta_},
               {advance(w.data, shape.first_row * w.stride, item_bytes(run_.unit.delta)), w.stride},
               {memory_ + product_, row_stride(shape.depth)}, run_.unit.real, accumulate);
  return memory_ + product_;
}

BackwardStep BackwardWalk::arguments(int stage, int64_t step, const void* product) const {
  const Slots& slots = states_.slots();
  const int64_t time = slots.time(step);
  BackwardStep s{};
  s.B = p_.B;
  s.N = run_.units(stage);
  s.ld_product = row_stride(s.N);
  s.ld_gates = states_.ld_gates();
  s.ld_extra = states_.ld_extra();
  s.ld_state = row_stride(s.N);
  s.ld_delta = ld_delta_;
  for (int i = 0; i < kMaxParameters; ++i) s.parameters[i] = call_.parameters[i].data;
  s.product = product;
  s.gates = states_.gates(time);
  s.extra = states_.extra(time);
  for (int i = 0; i < run_.states(); ++i) {
    s.entering[i] = states_.state(i, slots.entering(step));
    s.carry[i] = carry(i);
  }
  for (int d = 0; d < run_.cell.deltas; ++d) s.delta[d] = delta_at(d, step);
  if (call_.dy.data != nullptr) {
    s.dy = advance(call_.dy.data, time * call_.dy.t_stride, item_bytes(run_.unit.edge));
  }
  s.dy_stride = call_.dy.b_stride;
  s.flags = states_.flags_at(step);
  s.following_flags = step + 1 < p_.T ? states_.flags_at(step + 1) : nullptr;
  return s;
}

// The gradients of the initial states.
void BackwardWalk::end_carry(const Products& products, cudaStream_t stream) const {
  for (int s = 0; s < run_.states(); ++s) {
    if (call_.dstate_0[s].data == nullptr) continue;
    InitialGradient gradient{};
    gradient.B = p_.B;
    gradient.n = run_.state_size(s);
    gradient.carry = carry(s);
    if (s == 0) gradient.product = gradient_of_h(products, 0);
    gradient.ld_product = row_stride(gradient.n);
    gradient.flags = states_.flags_at(0);
    gradient.to = call_.dstate_0[s];
    initial_gradient(gradient, run_.unit.edge, stream);
  }
}

void* BackwardWalk::delta_at(int delta, int64_t step) const {
  const int64_t row = states_.slots().time(step) * p_.B;
  return advance(memory_ + delta_, row * ld_delta_ + run_.delta_column(delta),
                 item_bytes(run_.unit.delta));
}

}  // namespace fusedrnn::cuda
