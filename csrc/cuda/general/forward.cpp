#include "cuda/general/forward.h"

#include <algorithm>
#include <cstdlib>

#include "cuda/general/norms.h"
#include "cuda/kernels/copy.h"

namespace fusedrnn::cuda {
namespace {

// Inputs are projected so many bytes of results at a time, or what FUSEDRNN_CUDA_CHUNK_BYTES says:
// few enough to be in the second-level cache still when their steps read them.
int64_t chunk_bytes() {
  static const int64_t bytes = [] {
    const char* const text = std::getenv("FUSEDRNN_CUDA_CHUNK_BYTES");
    const int64_t asked = text == nullptr ? 0 : std::atoll(text);
    return asked > 0 ? asked : int64_t{16} << 20;
  }();
  return bytes;
}

}  // namespace

int64_t GeneralForward::chunk_steps(const Run& run) {
  const Problem& p = run.problem;
  const int64_t row_bytes =
      row_stride(run.cell.gates * p.H) * static_cast<int64_t>(item_bytes(run.types.real));
  const int64_t rows = std::max<int64_t>(chunk_bytes() / row_bytes, 1);
  return std::clamp<int64_t>(rows / p.B, 1, p.T);
}

GeneralForward::GeneralForward(const ForwardCall& call, States& states, const NoiseMasks& noise,
                               bool shows_padding, Layout& layout)
    : call_(call),
      p_(call.problem),
      states_(states),
      noise_(noise),
      run_(states.run()),
      shows_padding_(shows_padding),
      chunk_steps_(chunk_steps(run_)),
      projection_(call.x, states, chunk_steps_, layout) {
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
  // Where y shows the states that stand still: in reverse those before a sequence's first step,
  // whose slot is another's later, otherwise those after its last.
  if (p_.reverse) write_padding(products);
  const int64_t missing = p_.T - states_.order().end();
  const int64_t end = p_.reverse ? p_.T : p_.T - missing;
  for (int64_t step = p_.reverse ? missing : 0; step < end;) {
    const int64_t steps = steps_from(step);
    const int64_t first_time = states_.slots().time(p_.reverse ? step + steps - 1 : step);
    if (!states_.keeps_gates()) states_.enter_chunk(first_time);
    projection_.run(products, first_time, steps, weights_[run_.cell.input.weights].place(memory_));
    for (const int64_t next = step + steps; step < next; ++step) take_step(products, step);
  }
  leave_last_step(products);
  if (!p_.reverse) write_padding(products);
}

Copy GeneralForward::copy_of(int64_t rows, int64_t n) const {
  Copy copy;
  copy.B = rows;
  copy.n = n;
  copy.order = states_.device_order();
  copy.alternates = !states_.slots().save;
  copy.turned = p_.reverse && p_.T % 2 != 0;
  return copy;
}

void GeneralForward::enter_first_step(const Products& products) const {
  // Each sequence enters its first step, which in reverse is that before its end.
  const bool at_ends = p_.reverse && states_.order().any();
  const int64_t slot = at_ends ? 0 : states_.slots().entering(0);
  const auto enter = [&](int s, void* to, Dtype dtype) {
    Copy copy = copy_of(p_.B, run_.state_size(s));
    copy.flags = states_.flags_at(0);
    copy.mask = kCut;
    copy.wanted = 0;
    copy.from = {call_.state_0[s].data, 0, call_.state_0[s].stride};
    copy.from_rows = Rows::numbers;
    copy.to = dense_sequence(to, p_.B, row_stride(copy.n));
    if (at_ends) copy.to_rows = Rows::ends;
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
    mask_h(products, slot, p_.B, at_ends ? Rows::ends : Rows::places);
  } else if (run_.types.mixed) {
    enter(0, states_.operand(slot), run_.types.row);
  }
}

// What w_hh multiplies in the place of h.
void GeneralForward::mask_h(const Products& products, int64_t slot, int64_t rows,
                            Rows place) const {
  Copy copy = copy_of(rows, run_.state_size(0));
  copy.from_rows = copy.to_rows = place;
  noise_.mask_operand(states_.state(0, slot), run_.types.state, states_.operand(slot),
                      run_.types.row, row_stride(copy.n), copy, products.stream);
}

// --- the inputs of a chunk ---

// As many as there is room for: where few sequences live, more steps.
int64_t GeneralForward::steps_from(int64_t step) const {
  const int64_t end = p_.reverse ? p_.T : states_.order().end();
  int64_t steps = 0;
  for (int64_t rows = 0; step + steps < end; ++steps) {
    rows += living(step + steps);
    if (steps > 0 && rows > chunk_steps_ * p_.B) break;
  }
  return steps;
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
      noise_.mask_operand(passed, run_.types.row, passed, run_.types.row, row_stride(n),
                          copy_of(living(step), n), products.stream);
    }
    if (stage + 1 == run_.stages()) mask_h(products, states_.slots().leaving(step), living(step));
  }
}

void GeneralForward::multiply(const Products& products, int stage, int64_t step) const {
  const auto& [operand, product] = run_.cell.stages[stage];
  if (operand == cells::Operand::none) return;
  multiply_rows(products, run_.shape(product), living(step), states_.multiplied(stage, step),
                weights_[product.weights].place(memory_), {u_.at(memory_, 0), u_.ld}, run_.types);
}

ForwardStep GeneralForward::arguments(int stage, int64_t step) const {
  const Slots& slots = states_.slots();
  const int64_t time = slots.time(step);
  ForwardStep s{};
  s.B = living(step);
  s.N = run_.units(stage);
  s.ld = row_stride(s.N);
  s.ld_gates = states_.ld_gates();
  s.ld_extra = states_.ld_extra();
  for (int i = 0; i < kMaxParameters; ++i) s.parameters[i] = call_.parameters[i].data;
  const Piece& product = run_.reads_row(stage) ? row_ : u_;
  s.u = product.at(memory_, 0);
  s.ld_u = product.ld;
  if (run_.reads_row(stage + 1)) s.passed_row = row_.at(memory_, 0);
  s.statistics = states_.statistics(time);
  s.ld_statistics = states_.ld_statistics();
  s.gates = states_.gates(time);
  s.extra = states_.extra(time);
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
  s.numbers = states_.device_order().numbers;
  s.noise = noise_.of_step(time);
  s.next_flags = step + 1 < p_.T ? states_.flags_at(step + 1) : nullptr;
  return s;
}

void GeneralForward::leave_last_step(const Products& products) const {
  const bool at_ends = states_.order().any() && !p_.reverse;
  const int64_t slot = at_ends ? 0 : states_.slots().entering(p_.T);
  for (int s = 0; s < run_.states(); ++s) {
    if (call_.state_n[s].data == nullptr) continue;
    Copy copy = copy_of(p_.B, run_.state_size(s));
    copy.from = dense_sequence(states_.state(s, slot), p_.B, row_stride(copy.n));
    if (at_ends) copy.from_rows = Rows::ends;
    copy.to = {call_.state_n[s].data, 0, call_.state_n[s].stride};
    copy.to_rows = Rows::numbers;
    copy_rows(copy, run_.state_type(s), run_.types.edge, products.stream);
  }
}

// y where no step is taken.
void GeneralForward::write_padding(const Products& products) const {
  if (!states_.order().any()) return;
  const auto write = [&](int s, const Sequence& y) {
    if (y.data == nullptr) return;
    Copy copy = copy_of(p_.B, run_.state_size(s));
    copy.T = p_.T;
    if (shows_padding_) copy.from = dense_sequence(states_.state(s, 0), p_.B, row_stride(copy.n));
    copy.from_rows = Rows::ends;
    copy.to = y;
    copy.to_rows = Rows::numbers;
    copy.only_missing = true;
    copy_rows(copy, run_.state_type(s), run_.types.edge, products.stream);
  };
  write(0, call_.y);
  for (int s = 0; s < run_.states(); ++s) write(s, call_.state_y[s]);
}

}  // namespace fusedrnn::cuda
