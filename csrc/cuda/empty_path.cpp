// Problems without steps or without sequences: states pass through, and sums over nothing are zero.
#include "core/empty.h"
#include "cuda/kernels/copy.h"
#include "cuda/kernels/step.h"
#include "cuda/path.h"

namespace fusedrnn::cuda {
namespace {

// Zeros where `from` is null. Memory that is its own source stays as it is.
void pass(const Matrix& from, const Matrix& to, int64_t rows, int64_t n, Dtype dtype,
          const Place& place) {
  if (to.data == nullptr || rows == 0) return;
  Copy copy;
  copy.B = rows;
  copy.n = n;
  copy.from = {from.data, 0, from.stride};
  copy.to = {to.data, 0, to.stride};
  copy_rows(copy, dtype, dtype, place.stream());
}

void pass_states(const Problem& p, const Matrix* from, const Matrix* to, const Place& place) {
  for (int s = 0; s < kMaxStates; ++s) pass(from[s], to[s], p.B, p.H, p.dtype, place);
}

class EmptyTape final : public CudaTape {
 public:
  void backward(const BackwardCall& call, const Place& place) const override {
    const Problem& p = call.problem;
    const int64_t rows = unit_of(p).cells[p.cell].shape.gates * p.H;
    pass_states(p, call.dstate_n, call.dstate_0, place);
    const auto clear = [&](const Matrix& gradient, int64_t m, int64_t n) {
      pass({}, gradient, m, n, p.dtype, place);
    };
    clear(call.dw_ih, rows, p.I);
    clear(call.dw_hh, rows, p.H);
    clear({call.db_ih, rows}, 1, rows);
    clear({call.db_hh, rows}, 1, rows);
  }
};

bool takes(const Problem& problem, const Place&) { return is_empty(problem); }

void forward(const ForwardCall& call, const CudaMasks&, const Place& place,
             std::unique_ptr<CudaTape>* tape) {
  if (tape != nullptr) *tape = std::make_unique<EmptyTape>();
  pass_states(call.problem, call.state_0, call.state_n, place);
}

}  // namespace

const Path kEmptyPath = {"empty", takes, forward};

}  // namespace fusedrnn::cuda
