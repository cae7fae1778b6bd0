#include "cuda/engine.h"

#include "cuda/general/general.h"
#include "cuda/general/run.h"
#include "cuda/kernels/copy.h"

namespace fusedrnn::cuda {
namespace {

bool is_empty(const Problem& p) { return p.T == 0 || p.B == 0; }

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

void pass_states(const Run& run, const Matrix* from, const Matrix* to, const Place& place) {
  for (int s = 0; s < run.states(); ++s) {
    pass(from[s], to[s], run.problem.B, run.state_size(s), run.problem.dtype, place);
  }
}

}  // namespace

size_t reserve_bytes(const Problem& problem) {
  return is_empty(problem) ? 0 : general_reserve_bytes(problem);
}

void forward(const ForwardCall& call, const CudaMasks& masks, const Place& place) {
  if (!is_empty(call.problem)) return general_forward(call, masks, place);
  pass_states(Run(call.problem), call.state_0, call.state_n, place);
}

void backward(const BackwardCall& call, const CudaMasks& masks, const Place& place) {
  if (!is_empty(call.problem)) return general_backward(call, masks, place);
  const Run run(call.problem);
  pass_states(run, call.dstate_n, call.dstate_0, place);
  for (size_t i = 0; i < run.cell.parameters.size(); ++i) {
    const cells::Parameter& parameter = run.cell.parameters[i];
    const bool matrix = parameter.columns.letter != 0;
    pass({}, call.dparameters[i], matrix ? run.size(parameter.rows) : 1,
         run.size(matrix ? parameter.columns : parameter.rows), call.problem.dtype, place);
  }
}

}  // namespace fusedrnn::cuda
