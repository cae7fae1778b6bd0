#include "cuda/general/states.h"

#include <algorithm>

namespace fusedrnn::cuda {

States::States(const Run& run, bool save, int64_t chunk_steps, Layout& layout)
    : run_(run),
      slots_{run.problem.T, run.problem.reverse, save},
      ld_gates_(row_stride(run.cell.gates * run.problem.H)),
      ld_extra_(row_stride(std::max(run.cell.saved - run.cell.gates, 0) * run.problem.H)) {
  const Problem& p = run.problem;
  const int64_t slots = save ? p.T + 1 : 2;
  const size_t real = item_bytes(run.unit.real), row = item_bytes(run.unit.row);
  for (int s = 0; s < run.states(); ++s) {
    state_[s] =
        layout.reserve({slots, p.B, row_stride(run.state_size(s))}, item_bytes(run.state_type(s)));
  }
  operand_ =
      run.unit.mixed ? layout.reserve({slots, p.B, row_stride(run.state_size(0))}, row) : state_[0];
  for (int stage = 1; stage < run.stages(); ++stage) {
    if (run.cell.stages[stage].operand != cells::Operand::passed) continue;
    passed_[stage] = layout.reserve({save ? p.T : 1, p.B, row_stride(run.units(stage - 1))}, row);
  }
  gates_ = layout.reserve({chunk_steps, p.B, ld_gates_}, real);
  if (save) extra_ = layout.reserve({p.T, p.B, ld_extra_}, real);
  flags_ = layout.reserve({p.T, p.B}, 1);
}

void States::use(void* memory, bool masked) {
  memory_ = static_cast<char*>(memory);
  masked_ = masked;
}

char* States::at(size_t offset, int64_t row, int64_t ld, Dtype dtype) const {
  return memory_ + offset + static_cast<size_t>(row * ld) * item_bytes(dtype);
}

void* States::state(int s, int64_t slot) const {
  return at(state_[s], slot * run_.problem.B, row_stride(run_.state_size(s)), run_.state_type(s));
}

void* States::operand(int64_t slot) const {
  return at(operand_, slot * run_.problem.B, row_stride(run_.state_size(0)), run_.unit.row);
}

void* States::passed(int stage, int64_t step) const {
  const int64_t row = slots_.save ? slots_.time(step) * run_.problem.B : 0;
  return at(passed_[stage], row, row_stride(run_.units(stage - 1)), run_.unit.row);
}

void* States::multiplied(int stage, int64_t step) const {
  const bool passed = run_.cell.stages[stage].operand == cells::Operand::passed;
  return passed ? this->passed(stage, step) : operand(slots_.entering(step));
}

void* States::gates(int64_t row_step) const {
  return at(gates_, row_step * run_.problem.B, ld_gates_, run_.unit.real);
}

void* States::extra(int64_t row_step) const {
  if (!slots_.save || ld_extra_ == 0) return nullptr;
  return at(extra_, row_step * run_.problem.B, ld_extra_, run_.unit.real);
}

uint8_t* States::flags() const {
  return masked_ ? reinterpret_cast<uint8_t*>(memory_ + flags_) : nullptr;
}

const uint8_t* States::flags_at(int64_t step) const {
  return masked_ ? flags() + slots_.time(step) * run_.problem.B : nullptr;
}

}  // namespace fusedrnn::cuda
