#include "core/validate_step.h"

#include <span>

#include "core/cell_info.h"
#include "core/error.h"
#include "core/footprint.h"
#include "core/tensor.h"
#include "core/tensor_checks.h"
#include "core/validate.h"

namespace fusedrnn {
namespace {

constexpr uintptr_t kWorkspaceAlignment = 64;

bool is_aligned(const void* p, uintptr_t unit) {
  return reinterpret_cast<uintptr_t>(p) % unit == 0;
}

void check_output(const char* name, const DLTensor* t, const FrozenStack& stack, Shape shape) {
  check_tensor(name, required(name, t), dtype_name(stack.dtype()), shape.begin(),
               static_cast<int>(shape.size()));
  check_dense(name, *t);
}

Footprint output_footprint(const char* name, const DLTensor& t) {
  const int64_t item = item_size(t);
  const Sequence rows = {data_of(t), t.ndim == 3 ? stride_of(t, 0) : 0, stride_of(t, t.ndim - 2)};
  const int64_t layers = t.ndim == 3 ? t.shape[0] : 1;
  return footprint(name, rows, layers, t.shape[t.ndim - 2], t.shape[t.ndim - 1], item);
}

Problem one_step(const fusedrnn_frozen& frozen, int64_t B) {
  Problem p = frozen.problem;
  p.T = 1;
  p.B = B;
  return p;
}

}  // namespace

void check_batch(const fusedrnn_frozen& frozen, int64_t batch) {
  if (batch >= 0 && steps_fit(one_step(frozen, batch))) return;
  const char* wanted = batch < 0 ? "at least 0" : "fewer sequences";
  throw_value_error(expected("batch", wanted, std::to_string(batch)));
}

bool is_step(const fusedrnn_frozen& frozen, const StepCall& call, const void* workspace) noexcept {
  const Problem& p = frozen.problem;
  const auto item = static_cast<uintptr_t>(item_size(p.dtype));
  bool good = call.B >= 0 && call.x != nullptr && is_aligned(call.x, item) &&
              workspace != nullptr && is_aligned(workspace, kWorkspaceAlignment);
  for (int s = 0; s < find_cell(p.cell)->states; ++s) {
    good = good && is_aligned(call.prev[s], item) && call.next[s] != nullptr &&
           is_aligned(call.next[s], item);
  }
  return good;
}

const char* state_name(int states, int index) {
  if (states == 1) return "state";
  return index == 0 ? "state[0]" : "state[1]";
}

const char* out_state_name(int states, int index) {
  if (states == 1) return "out[1]";
  return index == 0 ? "out[1][0]" : "out[1][1]";
}

int64_t check_step_inputs(const FrozenStack& stack, const StepTensors& tensors) {
  const char* dtype = dtype_name(stack.dtype());
  const int64_t x_shape[] = {-1, stack.input_size()};
  check_tensor("x_t", required("x_t", tensors.x), dtype, x_shape, 2);
  const int64_t B = tensors.x->shape[0];
  const int64_t state_shape[] = {stack.num_layers(), B, stack.hidden_size()};
  for (int s = 0; s < stack.states(); ++s) {
    if (tensors.state[s] == nullptr) continue;
    check_tensor(state_name(stack.states(), s), *tensors.state[s], dtype, state_shape, 3);
  }
  if (!steps_fit(one_step(stack.first(), B))) {
    throw_value_error("x_t: shape " + shape_text(*tensors.x) + " is too large");
  }
  return B;
}

void check_step_outputs(const FrozenStack& stack, const StepTensors& tensors, int64_t B) {
  const int64_t H = stack.hidden_size();
  Footprint outputs[1 + kMaxStates];
  check_output("out[0]", tensors.y, stack, {B, H});
  outputs[0] = output_footprint("out[0]", *tensors.y);
  for (int s = 0; s < stack.states(); ++s) {
    const char* name = out_state_name(stack.states(), s);
    check_output(name, tensors.state_n[s], stack, {stack.num_layers(), B, H});
    outputs[1 + s] = output_footprint(name, *tensors.state_n[s]);
  }
  check_outputs_apart(std::span(outputs, static_cast<size_t>(1 + stack.states())));
}

}  // namespace fusedrnn
