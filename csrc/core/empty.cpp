#include "core/empty.h"

#include <cstring>

#include "core/cell_info.h"
#include "core/tensor.h"

namespace fusedrnn {
namespace {

void pass_states(const Problem& p, const Matrix* from, const Matrix* to) {
  const int64_t item = item_size(p.dtype);
  const size_t row_bytes = static_cast<size_t>(p.H * item);
  for (int s = 0; s < kMaxStates; ++s) {
    if (to[s].data == nullptr) continue;
    for (int64_t b = 0; b < p.B; ++b) {
      char* target = static_cast<char*>(to[s].data) + b * to[s].stride * item;
      if (from[s].data == nullptr) {
        std::memset(target, 0, row_bytes);
      } else {
        const char* source = static_cast<const char*>(from[s].data) + b * from[s].stride * item;
        std::memmove(target, source, row_bytes);  // memory that is its own source is no error
      }
    }
  }
}

void fill_zero(const Matrix& m, int64_t rows, int64_t n, int64_t item) {
  if (m.data == nullptr) return;
  for (int64_t i = 0; i < rows; ++i) {
    std::memset(static_cast<char*>(m.data) + i * m.stride * item, 0, static_cast<size_t>(n * item));
  }
}

}  // namespace

void forward_empty(const ForwardCall& call) {
  pass_states(call.problem, call.state_0, call.state_n);
}

void backward_empty(const BackwardCall& call) {
  const Problem& p = call.problem;
  const int64_t rows = find_cell(p.cell)->gates * p.H;
  const int64_t item = item_size(p.dtype);
  pass_states(p, call.dstate_n, call.dstate_0);
  fill_zero(call.dw_ih, rows, p.I, item);
  fill_zero(call.dw_hh, rows, p.H, item);
  fill_zero({call.db_ih, rows}, 1, rows, item);
  fill_zero({call.db_hh, rows}, 1, rows, item);
}

}  // namespace fusedrnn
