#include "cuda/general/states.h"

namespace fusedrnn::cuda {

States::States(const Problem& p, const Unit& unit, bool save, int64_t chunk_steps, Layout& layout)
    : problem_(p), unit_(unit), slots_{p.T, p.reverse, save} {
  const CellShape& shape = cell();
  ld_state_ = row_stride(p.H);
  ld_gates_ = row_stride(shape.gates * p.H);
  ld_extra_ = row_stride((shape.saved - shape.gates) * p.H);
  const int64_t slots = save ? p.T + 1 : 2;
  const size_t real = item_bytes(unit.real), row = item_bytes(unit.row);
  state_[0] = layout.reserve({slots, p.B, ld_state_}, item_bytes(unit.state));
  for (int s = 1; s < shape.states; ++s) {
    state_[s] = layout.reserve({slots, p.B, ld_state_}, real);
  }
  input_[0] = unit.mixed ? layout.reserve({slots, p.B, ld_state_}, row) : state_[0];
  for (int phase = 1; phase < shape.phases; ++phase) {
    input_[phase] = layout.reserve({save ? p.T : 1, p.B, ld_state_}, row);
  }
  gates_ = layout.reserve({chunk_steps, p.B, ld_gates_}, real);
  if (save) extra_ = layout.reserve({p.T, p.B, ld_extra_}, real);
}

char* States::at(size_t offset, int64_t row, int64_t ld, Dtype dtype) const {
  return memory_ + offset + static_cast<size_t>(row * ld) * item_bytes(dtype);
}

void* States::state(int s, int64_t slot) const {
  return at(state_[s], slot * problem_.B, ld_state_, s == 0 ? unit_.state : unit_.real);
}

void* States::input_slot(int phase, int64_t slot) const {
  return at(input_[phase], slot * problem_.B, ld_state_, unit_.row);
}

void* States::input(int phase, int64_t step) const {
  if (phase == 0) return input_slot(0, slots_.entering(step));
  return input_slot(phase, slots_.save ? slots_.time(step) : 0);
}

void* States::gates(int64_t row_step) const {
  return at(gates_, row_step * problem_.B, ld_gates_, unit_.real);
}

void* States::extra(int64_t row_step) const {
  if (!slots_.save || ld_extra_ == 0) return nullptr;
  return at(extra_, row_step * problem_.B, ld_extra_, unit_.real);
}

}  // namespace fusedrnn::cuda
