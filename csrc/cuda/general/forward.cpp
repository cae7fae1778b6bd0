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
        int64_t{p.reverse}, p.T, p.B, p.I, p.H}) {
    key.add(number);
  }
}

int64_t GeneralForward::chunk_steps(const Problem& p, const Unit& unit, bool save) {
  if (save) return p.T;
  const int64_t gates = unit.cells[p.cell].shape.gates;
  const int64_t row_bytes = row_stride(gates * p.H) * static_cast<int64_t>(item_bytes(unit.real));
  const int64_t rows = std::max<int64_t>(chunk_bytes() / row_bytes, 1);
  return std::clamp<int64_t>(rows / p.B, 1, p.T);
}

GeneralForward::GeneralForward(const ForwardCall& call, const States& states, int64_t chunk_steps,
                               Gemm& gemm, Layout& layout)
    : call_(call),
      p_(call.problem),
      states_(states),
      chunk_steps_(chunk_steps),
      gemm_(gemm),
      stage_inputs_(states.unit().edge != states.unit().row ||
                    !groups_of(call.x, chunk_steps, p_.B, p_.I)),
      w_ih_(call.w_ih, states.cell().gates * p_.H, p_.I, states.unit().edge, states.unit().row),
      w_hh_(call.w_hh, states.cell().gates * p_.H, p_.H, states.unit().edge, states.unit().row),
      ld_x_(row_stride(p_.I)) {
  const CellShape& cell = states.cell();
  int widest = 0;
  for (int phase = 0; phase < cell.phases; ++phase) {
    widest = std::max(widest, cell.phase_gates[phase]);
  }
  ld_u_ = row_stride(widest * p_.H);
  u_ = layout.reserve({p_.B, ld_u_}, item_bytes(states.unit().real));
  if (stage_inputs_) {
    x_ = layout.reserve({chunk_steps, p_.B, ld_x_}, item_bytes(states.unit().row));
  }
  w_ih_.reserve(layout);
  w_hh_.reserve(layout);
  workspace_ = layout.reserve({static_cast<int64_t>(gemm.workspace_bytes())}, 1);
}

void GeneralForward::use(char* memory, const uint8_t* flags) {
  memory_ = memory;
  flags_ = flags;
}

void GeneralForward::describe(GraphKey& key) const {
  key.add('f');
  add_problem(p_, key);
  key.add(memory_);
  key.add(states_.state(0, 0));
  key.add(states_.save());
  key.add(flags_);
  key.add(call_.x);
  key.add(call_.y);
  key.add(call_.b_ih);
  key.add(call_.b_hh);
  for (const Matrix& m : {call_.w_ih, call_.w_hh, call_.state_0[0], call_.state_0[1],
                          call_.state_n[0], call_.state_n[1]}) {
    key.add(m);
  }
}

int64_t GeneralForward::launches() const { return 2 * p_.T * states_.cell().phases; }

void GeneralForward::launch(cudaStream_t stream) const {
  const bool tfloat32 = p_.compute == Compute::tfloat32;
  const Products products(gemm_, states_.unit().row, tfloat32, memory_ + workspace_, stream);
  stage_weights(stream);
  enter_first_step(stream);
  for (int64_t step = 0; step < p_.T; ++step) {
    if (step % chunk_steps_ == 0) project(products, step, stream);
    take_step(products, step, stream);
  }
  leave_last_step(stream);
}

void GeneralForward::stage_weights(cudaStream_t stream) const {
  w_ih_.copy(memory_, stream);
  w_hh_.copy(memory_, stream);
}

void GeneralForward::enter_first_step(cudaStream_t stream) const {
  const Unit& unit = states_.unit();
  const int64_t slot = states_.slots().entering(0);
  Copy copy;
  copy.B = p_.B;
  copy.n = p_.H;
  copy.flags = flags_at(0);
  copy.mask = kCut;
  copy.wanted = 0;
  const auto enter = [&](int s, void* to, Dtype dtype) {
    copy.from = {call_.state_0[s].data, 0, call_.state_0[s].stride};
    copy.to = {to, 0, states_.ld_state()};
    copy_rows(copy, unit.edge, dtype, stream);
  };
  enter(0, states_.state(0, slot), unit.state);
  if (unit.mixed) enter(0, states_.input_slot(0, slot), unit.row);
  for (int s = 1; s < states_.cell().states; ++s) enter(s, states_.state(s, slot), unit.real);
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
  const Unit& unit = states_.unit();
  const int64_t steps = steps_from(step), gates = states_.cell().gates * p_.H;
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
  const Matrix w = w_ih_.place(memory_);
  products.run({groups.rows, gates, p_.I, groups.batch},
               {x.data, groups.stride, false, groups.batch_stride}, {w.data, w.stride, true, 0},
               {states_.gates(0), out.stride, out.batch_stride}, unit.real);
}

// --- a step ---

void GeneralForward::take_step(const Products& products, int64_t step, cudaStream_t stream) const {
  for (int phase = 0; phase < states_.cell().phases; ++phase) {
    multiply_state(products, phase, step);
    states_.kernels().forward[phase](arguments(phase, step), stream);
  }
}

void GeneralForward::multiply_state(const Products& products, int phase, int64_t step) const {
  const CellShape& cell = states_.cell();
  const Unit& unit = states_.unit();
  const Matrix w = w_hh_.place(memory_);
  const int64_t first_row = cell.phase_first[phase] * p_.H;
  products.run({p_.B, cell.phase_gates[phase] * p_.H, p_.H},
               {states_.input(phase, step), states_.ld_state()},
               {advance(w.data, first_row * w.stride, item_bytes(unit.row)), w.stride, true},
               {memory_ + u_, ld_u_}, unit.real);
}

ForwardStep GeneralForward::arguments(int phase, int64_t step) const {
  const Unit& unit = states_.unit();
  const Slots& slots = states_.slots();
  const int64_t time = slots.time(step), row_step = time - first_time(step);
  ForwardStep s{};
  s.B = p_.B;
  s.H = p_.H;
  s.ld_u = ld_u_;
  s.ld_gates = states_.ld_gates();
  s.ld_extra = states_.ld_extra();
  s.ld_state = states_.ld_state();
  s.b_ih = call_.b_ih;
  s.b_hh = call_.b_hh;
  s.u = memory_ + u_;
  s.gates = states_.gates(row_step);
  s.extra = states_.extra(row_step);
  s.keep = states_.save();
  for (int i = 0; i < states_.cell().states; ++i) {
    s.entering[i] = states_.state(i, slots.entering(step));
    s.leaving[i] = states_.state(i, slots.leaving(step));
  }
  if (unit.mixed) s.operand = states_.input_slot(0, slots.leaving(step));
  if (phase + 1 < states_.cell().phases) s.passed = states_.input(phase + 1, step);
  s.y = advance(call_.y.data, time * call_.y.t_stride, item_bytes(unit.edge));
  s.y_stride = call_.y.b_stride;
  s.flags = flags_at(step);
  s.next_flags = step + 1 < p_.T ? flags_at(step + 1) : nullptr;
  return s;
}

const uint8_t* GeneralForward::flags_at(int64_t step) const {
  return flags_ == nullptr ? nullptr : flags_ + states_.slots().time(step) * p_.B;
}

void GeneralForward::leave_last_step(cudaStream_t stream) const {
  const Unit& unit = states_.unit();
  const int64_t slot = states_.slots().entering(p_.T);
  for (int s = 0; s < states_.cell().states; ++s) {
    if (call_.state_n[s].data == nullptr) continue;
    Copy copy;
    copy.B = p_.B;
    copy.n = p_.H;
    copy.from = {states_.state(s, slot), 0, states_.ld_state()};
    copy.to = {call_.state_n[s].data, 0, call_.state_n[s].stride};
    copy_rows(copy, s == 0 ? unit.state : unit.real, unit.edge, stream);
  }
}

}  // namespace fusedrnn::cuda
