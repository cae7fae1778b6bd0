#include "cuda/general/forward.h"

#include <algorithm>
#include <cstdlib>

#include "cuda/general/norms.h"
#include "cuda/kernels/copy.h"

namespace fusedrnn::cuda {
namespace {

// Where gates are not kept, projected inputs are needed only until their step has been taken: so
// many bytes of them are held at a time, or what FUSEDRNN_CUDA_CHUNK_BYTES says.
int64_t chunk_bytes() {
  static const int64_t bytes = [] {
    const char* const text = std::getenv("FUSEDRNN_CUDA_CHUNK_BYTES");
    const int64_t asked = text == nullptr ? 0 : std::atoll(text);
    return asked > 0 ? asked : int64_t{128} << 20;
  }();
  return bytes;
}

}  // namespace

int64_t GeneralForward::chunk_steps(const Run& run, bool keeps_gates) {
  const Problem& p = run.problem;
  if (keeps_gates) return p.T;
  const int64_t row_bytes =
      row_stride(run.cell.gates * p.H) * static_cast<int64_t>(item_bytes(run.types.real));
  const int64_t rows = std::max<int64_t>(chunk_bytes() / row_bytes, 1);
  return std::clamp<int64_t>(rows / p.B, 1, p.T);
}

GeneralForward::GeneralForward(const ForwardCall& call, const States& states,
                               const NoiseMasks& noise, int64_t chunk_steps, Layout& layout)
    : call_(call),
      p_(call.problem),
      states_(states),
      noise_(noise),
      run_(states.run()),
      chunk_steps_(chunk_steps),
      projection_(call.x, states, chunk_steps, layout) {
  int64_t widest = 0;
  for (const cells::Stage& stage : run_.cell.stages) {
    if (stage.operand == cells::Operand::none) continue;
    widest = std::max(widest, run_.shape(stage.product).rows);
  }
  u_ = {layout, 1, p_.B, widest, run_.types.real};
  if (run_.passes_rows()) row_ = {layout, 1, p_.B, p_.H, run_.types.real};
  for (int i = 0; i < run_.parameters(); ++i) {
    if (!run_.is_matrix(i)) continue;
    const auto [rows, columns] = run_.parameter_shape(i);
    weights_[i] = {call.parameters[i], rows, columns, run_.types.edge, run_.types.row};
    weights_[i].reserve(layout);
  }
}

void GeneralForward::launch(const Products& products) const {
  for (const StagedMatrix& weights : weights_) weights.copy(memory_, products.stream);
  enter_first_step(products);
  for (int64_t step = 0; step < p_.T; ++step) {
    if (step % chunk_steps_ == 0) project(products, step);
    take_step(products, step);
  }
  leave_last_step(products);
}

void GeneralForward::enter_first_step(const Products& products) const {
  const int64_t slot = states_.slots().entering(0);
  const auto enter = [&](int s, void* to, Dtype dtype) {
    Copy copy;
    copy.B = p_.B;
    copy.n = run_.state_size(s);
    copy.flags = states_.flags_at(0);
    copy.mask = kCut;
    copy.wanted = 0;
    copy.from = {call_.state_0[s].data, 0, call_.state_0[s].stride};
    copy.to = {to, 0, row_stride(copy.n)};
    copy_rows(copy, run_.types.edge, dtype, products.stream);
    if (copy.flags == nullptr || call_.reset_state[s].data == nullptr) return;
    // The reset state, added to the zeros that are where the state was cut.
    copy.from = {call_.reset_state[s].data, 0, 0};
    copy.wanted = kCut;
    copy.accumulate = true;
    copy_rows(copy, run_.types.edge, dtype, products.stream);
  };
  for (int s = 0; s < run_.states(); ++s) enter(s, states_.state(s, slot), run_.state_type(s));
  if (run_.masks_operand(call_.reserve != nullptr)) {
    mask_h(products, slot);
  } else if (run_.types.mixed) {
    enter(0, states_.operand(slot), run_.types.row);
  }
}

// What w_hh multiplies in the place of h.
void GeneralForward::mask_h(const Products& products, int64_t slot) const {
  const int64_t n = run_.state_size(0);
  noise_.mask_operand(states_.state(0, slot), run_.types.state, states_.operand(slot),
                      run_.types.row, n, row_stride(n), products.stream);
}

// --- the inputs of a chunk ---

int64_t GeneralForward::steps_from(int64_t step) const {
  return std::min(chunk_steps_, p_.T - step);
}

int64_t GeneralForward::first_time(int64_t step) const {
  const int64_t first = step - step % chunk_steps_;
  return p_.reverse ? states_.slots().time(first + steps_from(first) - 1) : first;
}

void GeneralForward::project(const Products& products, int64_t step) const {
  projection_.run(products, first_time(step), steps_from(step),
                  weights_[run_.cell.input.weights].place(memory_));
}

// --- a step ---

void GeneralForward::take_step(const Products& products, int64_t step) const {
  for (int stage = 0; stage < run_.stages(); ++stage) {
    multiply(products, stage, step);
    const ForwardStep of_stage = arguments(stage, step);
    norm_statistics_of(run_, stage, of_stage, products.stream);
    run_.kernels.forward[stage](of_stage, p_.constants, products.stream);
    if (!run_.masks_operand(call_.reserve != nullptr)) continue;
    if (run_.multiplies_passed(stage + 1) && run_.multiplies_recurrent(stage + 1)) {
      void* const passed = states_.passed(stage + 1, step);
      const int64_t n = run_.units(stage);
      noise_.mask_operand(passed, run_.types.row, passed, run_.types.row, n, row_stride(n),
                          products.stream);
    }
    if (stage + 1 == run_.stages()) mask_h(products, states_.slots().leaving(step));
  }
}

void GeneralForward::multiply(const Products& products, int stage, int64_t step) const {
  const auto& [operand, product] = run_.cell.stages[stage];
  if (operand == cells::Operand::none) return;
  multiply_rows(products, run_.shape(product), p_.B, states_.multiplied(stage, step),
                weights_[product.weights].place(memory_), {u_.at(memory_, 0), u_.ld}, run_.types);
}

ForwardStep GeneralForward::arguments(int stage, int64_t step) const {
  const Slots& slots = states_.slots();
  const int64_t time = slots.time(step), row_step = time - first_time(step);
  ForwardStep s{};
  s.B = p_.B;
  s.N = run_.units(stage);
  s.ld = row_stride(s.N);
  s.ld_gates = states_.ld_gates();
  s.ld_extra = states_.ld_extra();
  for (int i = 0; i < kMaxParameters; ++i) s.parameters[i] = call_.parameters[i].data;
  const Piece& product = run_.reads_row(stage) ? row_ : u_;
  s.u = product.at(memory_, 0);
  s.ld_u = product.ld;
  if (run_.reads_row(stage + 1)) s.passed_row = row_.at(memory_, 0);
  s.statistics = states_.statistics(row_step);
  s.ld_statistics = states_.ld_statistics();
  s.gates = states_.gates(row_step);
  s.extra = states_.extra(row_step);
  s.keep = states_.keeps_gates();
  for (int i = 0; i < run_.states(); ++i) {
    s.entering[i] = states_.state(i, slots.entering(step));
    s.leaving[i] = states_.state(i, slots.leaving(step));
    s.reset[i] = call_.reset_state[i].data;
    const Sequence& y = call_.state_y[i];
    if (y.data != nullptr) s.shown[i] = advance(y.data, time * y.t_stride, run_.types.edge);
    s.shown_stride[i] = y.b_stride;
  }
  if (run_.types.mixed) s.operand = states_.operand(slots.leaving(step));
  if (run_.multiplies_passed(stage + 1)) s.passed = states_.passed(stage + 1, step);
  s.y = advance(call_.y.data, time * call_.y.t_stride, run_.types.edge);
  s.y_stride = call_.y.b_stride;
  s.flags = states_.flags_at(step);
  s.noise = noise_.of_step(time);
  s.next_flags = step + 1 < p_.T ? states_.flags_at(step + 1) : nullptr;
  return s;
}

void GeneralForward::leave_last_step(const Products& products) const {
  const int64_t slot = states_.slots().entering(p_.T);
  for (int s = 0; s < run_.states(); ++s) {
    if (call_.state_n[s].data == nullptr) continue;
    const int64_t n = run_.state_size(s);
    copy_matrix({states_.state(s, slot), row_stride(n)}, run_.state_type(s), call_.state_n[s],
                run_.types.edge, p_.B, n, products.stream);
  }
}

}  // namespace fusedrnn::cuda
