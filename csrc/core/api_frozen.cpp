// The C ABI: frozen weights.
#include <memory>
#include <vector>

#include "core/backend.h"
#include "core/cell_info.h"
#include "core/empty.h"
#include "core/flags.h"
#include "core/frozen.h"
#include "core/guarded.h"
#include "core/validate.h"
#include "core/validate_step.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {
namespace {

void freeze(const fusedrnn_freeze_args& args, fusedrnn_frozen** result) {
  not_null("frozen", result);
  const FreezeCall call = check_freeze(args, Layout::dense);
  auto frozen = std::make_unique<fusedrnn_frozen>();
  frozen->problem = call.problem;
  frozen->weights = cpu_backend().freeze(call);
  *result = frozen.release();
}

void forward(const fusedrnn_frozen& frozen, const fusedrnn_forward_args& args) {
  ForwardCall call = check_forward(args, &frozen.problem);
  const std::vector<uint8_t> flags = step_flags(call.problem, args.lengths, args.resets);
  call.flags = flags.empty() ? nullptr : flags.data();
  if (is_empty(call.problem)) {
    forward_empty(call);
  } else {
    cpu_backend().forward(*frozen.weights, call);
  }
}

size_t workspace(const fusedrnn_frozen& frozen, int64_t batch) {
  check_batch(frozen, batch);
  return step_workspace(frozen, batch);
}

}  // namespace
}  // namespace fusedrnn

extern "C" {

fusedrnn_status fusedrnn_freeze(const fusedrnn_freeze_args* args, fusedrnn_frozen** frozen) {
  return fusedrnn::guarded([&] { fusedrnn::freeze(fusedrnn::not_null("args", args), frozen); });
}

void fusedrnn_frozen_free(fusedrnn_frozen* frozen) { delete frozen; }

fusedrnn_status fusedrnn_frozen_forward(const fusedrnn_frozen* frozen,
                                        const fusedrnn_forward_args* args) {
  return fusedrnn::guarded([&] {
    fusedrnn::forward(fusedrnn::not_null("frozen", frozen), fusedrnn::not_null("args", args));
  });
}

size_t fusedrnn_frozen_workspace(const fusedrnn_frozen* frozen, int64_t batch) {
  size_t bytes = 0;
  fusedrnn::guarded(
      [&] { bytes = fusedrnn::workspace(fusedrnn::not_null("frozen", frozen), batch); });
  return bytes;
}

fusedrnn_status fusedrnn_frozen_step(const fusedrnn_frozen* frozen, int64_t batch, const void* x,
                                     const void* const* prev_states, void* const* next_states,
                                     void* workspace) {
  if (frozen == nullptr || next_states == nullptr) return FUSEDRNN_INVALID_VALUE;
  fusedrnn::StepCall call;
  call.B = batch;
  call.x = x;
  for (int s = 0; s < fusedrnn::find_cell(frozen->problem.cell)->states; ++s) {
    if (prev_states != nullptr) call.prev[s] = prev_states[s];
    call.next[s] = next_states[s];
  }
  if (!fusedrnn::is_step(*frozen, call, workspace)) return FUSEDRNN_INVALID_VALUE;
  if (batch > 0) fusedrnn::step_alone(*frozen, call, workspace);
  return FUSEDRNN_OK;
}

}  // extern "C"
