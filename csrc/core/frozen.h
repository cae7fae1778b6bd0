// What fusedrnn_frozen is, and how one layer takes a step with it.
#pragma once

#include <cstdint>
#include <memory>

#include "core/backend.h"
#include "core/problem.h"

struct fusedrnn_frozen {
  fusedrnn::Problem problem;  // what was frozen; T and B are 0
  std::unique_ptr<fusedrnn::FrozenWeights> weights;
};

namespace fusedrnn {

// Multiply-adds of a step of one sequence: the weights it reads.
int64_t step_work(const Problem& frozen);

// Whether a step is worth the start of a team of threads, of which there are more than one.
// Throws where their number cannot be known.
bool step_pays_threads(const Problem& frozen);

// At least 64 bytes. Throws where B is too large.
size_t step_workspace(const fusedrnn_frozen& frozen, int64_t B);

// On this thread alone, in such a workspace: allocates nothing, takes no lock, cannot fail.
void step_alone(const fusedrnn_frozen& frozen, const StepCall& call, void* workspace) noexcept;

// On a team of threads: the same bits. May allocate, and throw before anything is written.
// `y`: [B,H], apart from all that `call` refers to; holds the output as well.
void step_with_threads(const fusedrnn_frozen& frozen, const StepCall& call, void* y);

}  // namespace fusedrnn
