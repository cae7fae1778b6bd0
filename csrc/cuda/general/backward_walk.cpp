#include "cuda/general/backward_walk.h"

#include <algorithm>

#include "cuda/general/norms.h"
#include "cuda/kernels/copy.h"

namespace fusedrnn::cuda {

BackwardWalk::BackwardWalk(const BackwardCall& call, const States& states, const NoiseMasks& noise,
                           int64_t chunk_steps, Layout& layout)
    : call_(call), p_(call.problem), states_(states), noise_(noise), run_(states.run()) {
  const Types& types = run_.types;
  delta_ = {layout, chunk_steps, p_.B, run_.delta_columns(), types.delta};
  int64_t deepest = 0;
  for (const auto& [operand, product] : run_.cell.stages) {
    if (operand == cells::Operand::none) continue;
    const auto [rows, columns] = run_.parameter_shape(product.weights);
    deepest = std::max(deepest, run_.shape(product).width());
    weights_[product.weights] = {call.parameters[product.weights], rows, columns, types.edge,
                                 types.delta};
  }
  product_ = {layout, 1, p_.B, deepest, types.real};
  if (run_.cell.normed > 0) normed_ = {layout, 1, p_.B, run_.cell.normed * p_.H, types.real};
  if (run_.passes_rows()) passed_ = {layout, 1, p_.B, p_.H, types.real};
  for (int s = 0; s < run_.states(); ++s) {
    carry_[s] = {layout, 1, p_.B, run_.state_size(s), types.real};
    if (call.flow[s] != nullptr) {
      flow_[s] = {layout, chunk_steps, p_.B, run_.state_size(s), types.real};
      // Of one state, then of the next.
      if (norms_.ld == 0) norms_ = {layout, 1, chunk_steps, p_.B, Dtype::float64};
    }
    if (call.dreset_state[s].data == nullptr) continue;
    resets_[s] = {layout, 1, p_.B, run_.state_size(s), types.real};
  }
  for (StagedMatrix& weights : weights_) weights.reserve(layout);
}

int64_t BackwardWalk::times() const {
  const int64_t end = states_.order().end();
  return wants_flow() ? p_.T : p_.reverse ? std::min(end + 1, p_.T) : end;
}

int64_t BackwardWalk::walked(int64_t step) const {
  const int64_t time = states_.slots().time(step);
  if (wants_flow()) return p_.B;
  return states_.order().living(p_.reverse ? std::max<int64_t>(time - 1, 0) : time);
}

void BackwardWalk::begin(const Products& products) const {
  for (const StagedMatrix& weights : weights_) weights.copy(memory_, products.stream);
  begin_carry(products);
  if (!p_.reverse) cross_padding(products);
}

const void* BackwardWalk::walk(const Products& products, int64_t first, int64_t steps,
                               const void* following) const {
  const int64_t last = first - steps + 1;
  for (int64_t step = first; step >= last; --step) {
    take_step(products, step, following);
    following = step > last_step() ? gradient_of_h(products, step) : nullptr;
  }
  find_norms(products, states_.first_time(), steps);
  return following;
}

// The steps that are not walked: where y shows the states that stand still they have gradients.
void BackwardWalk::cross_padding(const Products& products) const {
  if (!states_.order().any() || wants_flow()) return;
  for (int s = 0; s < run_.states(); ++s) {
    PaddingGradient gradient{};
    gradient.T = p_.T;
    gradient.B = p_.B;
    gradient.n = run_.state_size(s);
    gradient.reverse = p_.reverse;
    gradient.ld = carry_[s].ld;
    gradient.carry = carry_[s].at(memory_, 0);
    gradient.limit = s == 0 ? call_.clip_dh : 0;
    gradient.flags = states_.flags();
    gradient.order = states_.device_order();
    gradient.dy = s == 0 ? call_.dy : Sequence{};
    gradient.dshown = call_.dstate_y[s];
    const bool adds = gradient.dy.data != nullptr || gradient.dshown.data != nullptr;
    if (!adds && !(gradient.limit > 0)) continue;
    padding_gradient(gradient, run_.types.edge, products.stream);
  }
}

void BackwardWalk::find_norms(const Products& products, int64_t first_time, int64_t steps) const {
  for (int s = 0; s < run_.states(); ++s) {
    if (call_.flow[s] == nullptr) continue;
    norms_of_steps({steps, p_.B, run_.state_size(s), flow_[s].ld, flow_[s].at(memory_, 0),
                    static_cast<double*>(norms_.at(memory_, 0)), call_.flow[s] + first_time},
                   run_.types.real, products.stream);
  }
}

// carry = the gradients of the states after the last step.
void BackwardWalk::begin_carry(const Products& products) const {
  for (int s = 0; s < run_.states(); ++s) {
    Copy copy;
    copy.B = p_.B;
    copy.n = run_.state_size(s);
    copy.order = states_.device_order();
    copy.from = {call_.dstate_n[s].data, 0, call_.dstate_n[s].stride};
    copy.from_rows = Rows::numbers;
    copy.to = {carry_[s].at(memory_, 0), 0, carry_[s].ld};
    copy_rows(copy, run_.types.edge, run_.types.real, products.stream);
    if (resets_at(s) == nullptr) continue;
    copy_matrix({}, run_.types.real, {resets_at(s), resets_[s].ld}, run_.types.real, p_.B,
                run_.state_size(s), products.stream);
  }
}

// To the last stage comes the gradient of h from the step that follows, to others that of what they
// passed on; null where nothing comes through products.
void BackwardWalk::take_step(const Products& products, int64_t step, const void* following) const {
  for (int stage = run_.stages() - 1; stage >= 0; --stage) {
    const void* product = nullptr;
    if (stage + 1 == run_.stages()) {
      product = following;
    } else if (run_.multiplies_passed(stage + 1)) {
      if (living(step) > 0) product = multiply_deltas(products, stage + 1, step, false);
    } else if (run_.reads_row(stage + 1)) {
      product = passed_.at(memory_, 0);
    }
    const BackwardStep arguments = arguments_of(stage, step, product);
    run_.kernels.backward[stage](arguments, p_.constants, products.stream);
    void* const passed = run_.reads_row(stage) ? passed_.at(memory_, 0) : nullptr;
    through_norms_of(run_, stage, arguments, passed, products.stream);
  }
}

// The gradient of the h that entered a step, as far as it goes through products.
const void* BackwardWalk::gradient_of_h(const Products& products, int64_t step) const {
  if (living(step) == 0) return nullptr;
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
  const Run::ProductShape shape = run_.shape(product);
  const Matrix w = weights_[product.weights].place(memory_);
  const void* const deltas = delta_at(run_.cell.first_delta(stage), step);
  void* const gradient = product_.at(memory_, 0);
  const Dtype type = run_.types.delta;
  const int64_t height = shape.head_rows(), ld = row_stride(shape.width());
  for (int64_t part = 0; part < shape.parts; ++part) {
    const int64_t row = part * shape.part_rows();
    products.run({living(step), shape.depth, height, shape.heads},
                 {advance(deltas, row, type), delta_.ld, false, shape.to_next_head(height)},
                 {advance(w.data, (shape.first_row + row) * w.stride, type), w.stride, false,
                  shape.to_next_head(height * w.stride)},
                 {gradient, ld, shape.to_next_head(shape.depth)}, run_.types.real,
                 accumulate || part > 0);
  }
  if (run_.masks_operand(true) && run_.multiplies_recurrent(stage)) {
    Copy copy;
    copy.B = living(step);
    copy.n = shape.width();
    copy.order = states_.device_order();
    noise_.mask_operand(gradient, run_.types.real, gradient, run_.types.real, ld, copy,
                        products.stream);
  }
  return gradient;
}

BackwardStep BackwardWalk::arguments_of(int stage, int64_t step, const void* product) const {
  const Slots& slots = states_.slots();
  const int64_t time = slots.time(step);
  BackwardStep s{};
  s.B = walked(step);
  s.living = living(step);
  s.N = run_.units(stage);
  s.ld = row_stride(s.N);
  s.ld_gates = states_.ld_gates();
  s.ld_extra = states_.ld_extra();
  s.ld_delta = delta_.ld;
  for (int i = 0; i < kMaxParameters; ++i) s.parameters[i] = call_.parameters[i].data;
  s.product = product;
  if (run_.cell.normed > 0) s.normed = normed_.at(memory_, 0);
  s.ld_normed = normed_.ld;
  s.statistics = states_.statistics(time);
  s.ld_statistics = states_.ld_statistics();
  s.gates = states_.gates(time);
  s.extra = states_.extra(time);
  for (int i = 0; i < run_.states(); ++i) {
    s.entering[i] = states_.state(i, slots.entering(step));
    s.carry[i] = carry_[i].at(memory_, 0);
    s.dreset[i] = resets_at(i);
    if (call_.flow[i] != nullptr) {
      s.flow[i] = flow_[i].at(memory_, (time - states_.first_time()) * p_.B);
    }
    const Sequence& dy = call_.dstate_y[i];
    if (dy.data != nullptr) s.dshown[i] = advance(dy.data, time * dy.t_stride, run_.types.edge);
    s.dshown_stride[i] = dy.b_stride;
  }
  for (int d = 0; d < run_.cell.deltas; ++d) s.delta[d] = delta_at(d, step);
  if (call_.dy.data != nullptr) {
    s.dy = advance(call_.dy.data, time * call_.dy.t_stride, run_.types.edge);
  }
  s.dy_stride = call_.dy.b_stride;
  s.clip_dh = call_.clip_dh;
  s.noise = noise_.of_step(time);
  s.flags = states_.flags_at(step);
  s.following_flags = step + 1 < p_.T ? states_.flags_at(step + 1) : nullptr;
  s.numbers = states_.device_order().numbers;
  return s;
}

// The gradients of the initial and of the reset states.
void BackwardWalk::end_carry(const Products& products) const {
  if (p_.reverse) cross_padding(products);
  for (int s = 0; s < run_.states(); ++s) {
    const bool multiplied = s == 0;  // of the reset states the others are complete
    if (call_.dstate_0[s].data == nullptr && !(multiplied && resets_at(s) != nullptr)) continue;
    InitialGradient gradient{};
    gradient.B = p_.B;
    gradient.n = run_.state_size(s);
    gradient.ld = carry_[s].ld;
    gradient.numbers = states_.device_order().numbers;
    gradient.carry = carry_[s].at(memory_, 0);
    if (multiplied) gradient.product = gradient_of_h(products, last_step());
    gradient.reset = multiplied ? resets_at(s) : nullptr;
    gradient.flags = states_.flags_at(last_step());
    gradient.to = call_.dstate_0[s];
    initial_gradient(gradient, run_.types.edge, products.stream);
  }
  for (int s = 0; s < run_.states(); ++s) {
    if (resets_at(s) == nullptr) continue;
    const RowSum sum{p_.B, run_.state_size(s), resets_[s].ld, resets_at(s),
                     call_.dreset_state[s].data};
    sum_rows_in_order(sum, run_.types.edge, products.stream);
  }
}

void* BackwardWalk::delta_at(int delta, int64_t step) const {
  const Order& order = states_.order();
  const int64_t row =
      order.first_row(states_.slots().time(step)) - order.first_row(states_.first_time());
  return advance(delta_.at(memory_, row), run_.delta_column(delta), delta_.type);
}

}  // namespace fusedrnn::cuda
