#include "core/frozen.h"

#include <algorithm>

#include "core/cell_info.h"
#include "core/system.h"
#include "core/tensor.h"

namespace fusedrnn {
namespace {

// Weights that are larger do not stay in the cache of one core from step to step; a second core
// brings its own cache and its own share of the memory's bandwidth.
constexpr int64_t kThreadedBytes = int64_t{3} << 18;

constexpr size_t kSmallestWorkspace = 64;

int64_t weight_size(const Problem& p) {
  switch (p.compute) {
    case Compute::bfloat16:
      return 2;
    case Compute::int8:
      return 1;
    default:
      return item_size(p.dtype);
  }
}

}  // namespace

int64_t step_work(const Problem& p) { return find_cell(p.cell)->gates * p.H * (p.I + p.H); }

bool step_pays_threads(const Problem& p) {
  return step_work(p) * weight_size(p) > kThreadedBytes && get_num_threads() > 1;
}

size_t step_workspace(const fusedrnn_frozen& frozen, int64_t B) {
  return std::max(kSmallestWorkspace, cpu_backend().step_workspace(*frozen.weights, B));
}

void step_alone(const fusedrnn_frozen& frozen, const StepCall& call, void* workspace) noexcept {
  cpu_backend().step(*frozen.weights, call, workspace);
}

void step_with_threads(const fusedrnn_frozen& frozen, const StepCall& step, void* y) {
  ForwardCall call;
  Problem& p = call.problem;
  p = frozen.problem;
  p.T = 1;
  p.B = step.B;
  call.x = {const_cast<void*>(step.x), p.B * p.I, p.I};
  call.y = {y, p.B * p.H, p.H};
  for (int s = 0; s < find_cell(p.cell)->states; ++s) {
    call.state_0[s] = {const_cast<void*>(step.prev[s]), p.H};
    call.state_n[s] = {step.next[s], p.H};
  }
  cpu_backend().forward(*frozen.weights, call);
}

}  // namespace fusedrnn
