#include "cuda/general/forward.h"

#include <algorithm>
#include <cstdlib>

#include "cuda/kernels/copy.h"

namespace fusedrnn::cuda {
namespace {

// Inference needs the projected inputs only until their step has been taken: so many bytes of them
// are held at a time, or what FUSEDRNN_CUDA_CHUNK_BYTES says.
int64_t chunk_bytes() {
  static const int64_t bytes = [] {
    const char* const text = std::getenv("FUSEDRNN_CUDA_CHUNK_BYTES");
    const int64_t asked = text == nullptr ? 0 : std::atoll(text);
    return asked > 0 ? asked : int64_t{128} << 20;
  }();
  return bytes;
}

}  // namespace

void add_problem(const Problem& p, GraphKey& key) {
  for (const int64_t number :
       {int64_t{p.cell}, static_cast<int64_t>(p.dtype), static_cast<int64_t>(p.compute),
        int64_t{p.reverse}, p.T, p.B, p.I, p.H, p.P}) {
    key.add(number);
  }
}

int64_t GeneralForward::chunk_steps(const Run& run, bool save) {
  const Problem& p = run.problem;
  if (save) return p.T;
  const int64_t row_bytes =
      row_stride(run.cell.gates * p.H) * static_cast<int64_t>(item_bytes(run.unit.real));
  const int64_t rows = std::max<int64_t>(chunk_bytes() / row_bytes, 1);
  return std::clamp<int64_t>(rows / p.B, 1, p.T);
}

GeneralForward::GeneralForward(const ForwardCall& call, const States& states, int64_t chunk_steps,
                               Gemm& gemm, Layout& layout)
    : call_(call),
      p_(call.problem),
      states_(states),
      run_(states.run()),
      chunk_steps_(chunk_steps),
      gemm_(gemm),
      stage_inputs_(run_.unit.edge != run_.unit.row || !groups_of(call.x, chunk_steps, p_.B, p_.I)),
      ld_x_(row_stride(p_.I)) {
  int64_t widest = 0;
  for (const cells::Stage& stage : run_.cell.stages) {
    if (stage.operand == cells::Operand::none) continue;
    widest = std::max(widest, run_.shape(stage.product).rows);
  }
  ld_u_ = row_stride(widest);
  u_ = layout.reserve({p_.B, ld_u_}, item_bytes(run_.unit.real));
  if (stage_inputs_) {
    x_ = layout.reserve({chunk_steps, p_.B, ld_x_}, item_bytes(run_.unit.row));
  }
  for (size_t i = 0; i < run_.cell.parameters.size(); ++i) {
    const cells::Parameter& parameter = run_.cell.parameters[i];
    if (parameter.columns.letter == 0) continue;
    weights_[i] = StagedMatrix(call.parameters[i], run_.size(parameter.rows),
                               run_.size(parameter.columns), run_.unit.edge, run_.unit.row);
    weights_[i].reserve(layout);
  }
  workspace_ = layout.reserve({static_cast<int64_t>(gemm.workspace_bytes())}, 1);
}

void GeneralForward::describe(GraphKey& key) const {
  key.add('f');
  add_problem(p_, key);
  key.add(memory_);
  key.add(states_.memory());
  key.add(states_.save());
  key.add(states_.flags());
  key.add(call_.x);
  key.add(call_.y);
  key.add(call_.parameters);
  key.add(call_.state_0);
  key.add(call_.state_n);
}

int64_t GeneralForward::launches() const { return 2 * p_.T * run_.stages(); }

void GeneralForward::launch(cudaStream_t stream) const {
  const bool tfloat32 = p_.compute == Compute::tfloat32;
  const Products products(gemm_, run_.unit.row, tfloat32, memory_ + workspace_, stream);
  for (const StagedMatrix& weights : weights_) weights.copy(memory_, stream);
  enter_first_step(stream);
  for (int64_t step = 0; step < p_.T; ++step) {
    if (step % chunk_steps_ == 0) project(products, step, stream);
    take_step(products, step, stream);
  }
  leave_last_step(stream);
}

void GeneralForward::enter_first_step(cudaStream_t stream) const {
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
    copy_rows(copy, run_.unit.edge, dtype, stream);
  };
  for (int s = 0; s < run_.states(); ++s) enter(s, states_.state(s, slot), run_.state_type(s));
  if (run_.unit.mixed) enter(0, states_.operand(slot), run_.unit.row);
}

// --- the inputs of a chunk ---

int64_t GeneralForward::steps_from(int64_t step) const {
  return std::min(chunk_steps_, p_.T - step);
}

int64_t GeneralForward::first_time(int64_t step) const {
  const int64_t first = step - step % chunk_steps_;
  return p_.reverse ? states_.slots().time(first + steps_from(first) - 1) : first;
}

void GeneralForward::project(const Products& products, int64_t step, cudaStream_t stream) const {
  const Unit& unit = run_.unit;
  const int64_t steps = steps_from(step), gates = run_.cell.gates * p_.H;
  Sequence x = call_.x;
  x.data = advance(x.data, first_time(step) * x.t_stride, item_bytes(unit.edge));
  RowGroups groups = dense_groups(RowGroups::flat, steps, p_.B, ld_x_);
  if (stage_inputs_) {
    Copy copy;
    copy.T = steps;
    copy.B = p_.B;
    copy.n = p_.I;
    copy.from = x;
    copy.to = dense_sequence(memory_ + x_, p_.B, ld_x_);
    copy_rows(copy, unit.edge, unit.row, stream);
    x = copy.to;
  } else {
    groups = *groups_of(x, steps, p_.B, p_.I);  // of fewer steps where it is of a whole chunk
  }
  const RowGroups out = dense_groups(groups.kind, steps, p_.B, states_.ld_gates());
  const Matrix w = weights_[run_.cell.input.weights].place(memory_);
  products.run({groups.rows, gates, p_.I, groups.batch},
               {x.data, groups.stride, false, groups.batch_stride}, {w.data, w.stride, true, 0},
               {states_.gates(0), out.stride, out.batch_stride}, unit.real);
}

// --- a step ---

void GeneralForward::take_step(const Products& products, int64_t step, cudaStream_t stream) const {
  for (int stage = 0; stage < run_.stages(); ++stage) {
    multiply(products, stage, step);
    run_.kernels.forward[stage](arguments(stage, step), stream);
  }
}

void GeneralForward::multiply(const Products& products, int stage, int64_t step) const {
  const auto& [operand, product] = run_.cell.stages[stage];
  if (operand == cells::Operand::none) return;
  const Run::Shape shape = run_.shape(product);
  const Matrix w = weights_[product.weights].place(memory_);
  products.run(
      {p_.B, shape.rows, shape.depth}, {states_.multiplied(stage, step), row_stride(shape.depth)},
      {advance(w.data, shape.first_row * w.stride, item_bytes(run_.unit.row)), w.stride, true},
      {memory_ + u_, ld_u_}, run_.unit.real);
}

ForwardStep GeneralForward::arguments(int stage, int64_t step) const {
  const Slots& slots = states_.slots();
  const int64_t time = slots.time(step), row_step = time - first_time(step);
  ForwardStep s{};
  s.B = p_.B;
  s.N = run_.units(stage);
  s.ld_u = ld_u_;
  s.ld_gates = states_.ld_gates();
  s.ld_extra = states_.ld_extra();
  s.ld_state = row_stride(s.N);
  for (int i = 0; i < kMaxParameters; ++i) s.parameters[i] = call_.parameters[i].data;
  s.u = memory_ + u_;
  s.gates = states_.gates(row_step);
  s.extra = states_.extra(row_step);
  s.keep = states_.save();
  for (int i = 0; i < run_.states(); ++i) {
    s.entering[i] = states_.state(i, slots.entering(step));
    s.leaving[i] = states_.state(i, slots.leaving(step));
  }
  if (run_.unit.mixed) s.operand = states_.operand(slots.leaving(step));
  if (stage + 1 < run_.stages()) s.passed = states_.passed(stage + 1, step);
  s.y = advance(call_.y.data, time * call_.y.t_stride, item_bytes(run_.unit.edge));
  s.y_stride = call_.y.b_stride;
  s.flags = states_.flags_at(step);
  s.next_flags = step + 1 < p_.T ? states_.flags_at(step + 1) : nullptr;
  return s;
}

void GeneralForward::leave_last_step(cudaStream_t stream) const {
  const int64_t slot = states_.slots().entering(p_.T);
  for (int s = 0; s < run_.states(); ++s) {
    if (call_.state_n[s].data == nullptr) continue;
    Copy copy;
    copy.B = p_.B;
    copy.n = run_.state_size(s);
    copy.from = {states_.state(s, slot), 0, row_stride(copy.n)};
    copy.to = {call_.state_n[s].data, 0, call_.state_n[s].stride};
    copy_rows(copy, run_.state_type(s), run_.unit.edge, stream);
  }
}

}  // namespace fusedrnn::cuda
