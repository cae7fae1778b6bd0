// The checks of a step with frozen weights.
#pragma once

#include <cstdint>

#include "core/frozen_stack.h"
#include "core/problem.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

// All that a real-time step looks at: nothing is null or misaligned that must not be.
bool is_step(const fusedrnn_frozen& frozen, const StepCall& call, const void* workspace) noexcept;

// Throws where a step of so many sequences cannot be.
void check_batch(const fusedrnn_frozen& frozen, int64_t batch);

// The arguments of a stack's step under the names that Python gives them. Null: no array given.
struct StepTensors {
  const DLTensor* x = nullptr;               // x_t
  const DLTensor* state[kMaxStates] = {};    // state, or state[0] and state[1]
  const DLTensor* y = nullptr;               // out[0]
  const DLTensor* state_n[kMaxStates] = {};  // out[1], or out[1][0] and out[1][1]
};

const char* state_name(int states, int index);
const char* out_state_name(int states, int index);

// Returns B. Strides and alignment are not looked at, and no element is read: the caller copies.
int64_t check_step_inputs(const FrozenStack& stack, const StepTensors& tensors);

// Of B sequences; y and the states are there, and each has a dense last axis.
void check_step_outputs(const FrozenStack& stack, const StepTensors& tensors, int64_t B);

}  // namespace fusedrnn
