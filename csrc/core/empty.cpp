#include "core/empty.h"

#include <cstring>

#include "core/dtype.h"

namespace fusedrnn {
namespace {

void pass_states(const Run& run, const Problem& p, const Matrix* from, const Matrix* to) {
  const int64_t item = item_size(p.dtype);
  for (int s = 0; s < run.num_states(); ++s) {
    if (to[s].data == nullptr) continue;
    const auto row_bytes = static_cast<size_t>(run.state_size(s) * item);
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

}  // namespace

void forward_empty(const Run& run, const ForwardCall& call) {
  pass_states(run, call.problem, call.state_0, call.state_n);
}

void backward_empty(const Run& run, const BackwardCall& call) {
  const Problem& p = call.problem;
  const int64_t item = item_size(p.dtype);
  pass_states(run, p, call.dstate_n, call.dstate_0);
  for (int i = 0; i < run.num_parameters(); ++i) {
    const Matrix& m = call.dparameters[i];
    if (m.data == nullptr) continue;
    const Shape shape = run.parameter_shape(i);
    const int64_t rows = shape.rank() == 1 ? 1 : shape.begin()[0];
    const int64_t columns = shape.end()[-1];
    for (int64_t row = 0; row < rows; ++row) {
      std::memset(static_cast<char*>(m.data) + row * m.stride * item, 0,
                  static_cast<size_t>(columns * item));
    }
  }
}

}  // namespace fusedrnn
