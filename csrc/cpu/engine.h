// The CPU engine as core sees it. Problems have steps and sequences (core/run_network.cpp answers
// the others), and what they refer to has been checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "core/problem.h"

namespace fusedrnn::cpu {

// Bytes that forward leaves for backward. They may be copied to other memory in between, aligned to
// kReserveAlignment as well; they mean the same in any process that runs the same instruction set.
size_t reserve_bytes(const Problem& problem);
constexpr size_t kReserveAlignment = 16;
// The most of any instruction set of this build.
size_t largest_reserve_bytes(const Problem& problem);

void gates(const GatesCall& call);

void drop(const DropCall& call);

// Weights as the kernels read them. Immutable: any number of threads may run with them.
struct Packed;
struct FreePacked {
  void operator()(const Packed* packed) const noexcept;
};
using PackedPointer = std::unique_ptr<const Packed, FreePacked>;

PackedPointer freeze(const FreezeCall& call);

// What freeze() was given, as far as it is kept: every parameter of the cell, dense. Zeros where
// there was none; matrices in the type of panels, that is rounded to what they are multiplied as.
struct UnpackCall {
  void* parameters[kMaxParameters] = {};  // written
  float* scales[kMaxParameters] = {};     // written: of matrices of 8 bits, one a row; else null
};
void unpack(const Packed& packed, const UnpackCall& call);

// A run of a network, and the numbers of the rows that it reads and writes.
template <class Call>
struct NetworkRun {
  size_t reads, writes;
  // Weights frozen for the same problem, of inference; null: they are the call's.
  const Packed* packed;
  Call call;
};

// Runs that each need nothing of those after it; those that write one row stand together, and none
// reads what another of them writes. Throws before any of it is written, or not at all, as long as
// nothing has to be done before something else.
void run(std::span<const NetworkRun<ForwardCall>> runs);
void run(std::span<const NetworkRun<BackwardCall>> runs);

// One step on the calling thread: allocates nothing, takes no lock, cannot fail. `workspace`:
// step_workspace(packed, B) bytes, aligned to 64, of one call at a time.
size_t step_workspace(const Packed& packed, int64_t B);
void step(const Packed& packed, const StepCall& call, void* workspace) noexcept;

// The same in two parts: what is the same in every step of B sequences, which refers to weights and
// workspace, and the step.
struct Step;
struct FreeStep {
  void operator()(const Step* step) const noexcept;
};
using StepPointer = std::unique_ptr<Step, FreeStep>;
StepPointer prepare_step(const Packed& packed, int64_t B, void* workspace);
void take(Step& step, const StepCall& call) noexcept;

// Steps one after the other, each on a team of threads or on the calling one, whichever is quicker.
// Of one call at a time. Throws before anything is written, or not at all.
struct TeamSteps;
struct FreeTeamSteps {
  void operator()(const TeamSteps* steps) const noexcept;
};
using TeamStepsPointer = std::unique_ptr<TeamSteps, FreeTeamSteps>;
TeamStepsPointer prepare_team_steps(const Packed& packed, int64_t B);
void take(TeamSteps& steps, const StepCall& call, Step& alone);

}  // namespace fusedrnn::cpu
