#include "cuda/engine.h"

#include "cuda/general/general.h"
#include "cuda/general/run.h"
#include "cuda/kernels/copy.h"

namespace fusedrnn::cuda {
namespace {

// Without steps or without sequences states pass through, and sums over nothing are zero.
bool is_empty(const Problem& p) { return p.T == 0 || p.B == 0; }

// Zeros where `from` is null. Memory that is its own source stays as it is.
void pass(const Matrix& from, const Matrix& to, int64_t rows, int64_t n, const Run& run,
          const Place& place) {
  if (to.data == nullptr || rows == 0) return;
  copy_matrix(from, run.types.edge, to, run.types.edge, rows, n, place.stream());
}

void pass_states(const Matrix* from, const Matrix* to, const Run& run, const Place& place) {
  for (int s = 0; s < run.states(); ++s) {
    pass(from[s], to[s], run.problem.B, run.state_size(s), run, place);
  }
}

}  // namespace

size_t reserve_bytes(const Problem& problem) {
  return is_empty(problem) ? 0 : general_reserve_bytes(problem);
}

void forward(const ForwardCall& call, const CudaMasks& masks, const Place& place) {
  if (!is_empty(call.problem)) return general_forward(call, masks, place);
  pass_states(call.state_0, call.state_n, Run(call.problem), place);
}

void backward(const BackwardCall& call, const CudaMasks& masks, const Place& place) {
  if (!is_empty(call.problem)) return general_backward(call, masks, place);
  const Run run(call.problem);
  pass_states(call.dstate_n, call.dstate_0, run, place);
  for (int i = 0; i < run.parameters(); ++i) {
    const auto [rows, columns] = run.parameter_shape(i);
    pass({}, call.dparameters[i], rows, columns, run, place);
  }
  for (int s = 0; s < run.states(); ++s) {
    pass({}, call.dreset_state[s], 1, run.state_size(s), run, place);
    if (call.flow[s] == nullptr || call.problem.T == 0) continue;
    copy_matrix({}, Dtype::float64, {call.flow[s], 0}, Dtype::float64, 1, call.problem.T,
                place.stream());
  }
}

}  // namespace fusedrnn::cuda
