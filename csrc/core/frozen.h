// A network with packed weights, and how it takes a step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/memory.h"
#include "core/network.h"
#include "cpu/engine.h"

struct fusedrnn_frozen {
  fusedrnn::Network network;
  std::vector<fusedrnn::cpu::PackedPointer> packed;  // of each run
  bool takes_steps = false;                          // is_plain_stack(network)
  bool batch_first = false;  // that arrays of Python's layer are [B,T,I]: a model file's to keep
};

namespace fusedrnn {

// Of parameters that have been checked (core/validate.h).
std::unique_ptr<fusedrnn_frozen> freeze(const Network& network, const DLTensor* const* parameters);

// One step of a plain stack of layers. Every array is dense: x [B,input size], and for each state
// of the network [B,size], where prev, or one of them, may be null: zero. next[s] may be prev[s];
// otherwise what is written shares no memory with anything else. The last layer's h is the step's
// output.
struct NetworkStep {
  int64_t B = 0;
  const void* x = nullptr;
  const void* const* prev = nullptr;
  void* const* next = nullptr;
};

// Multiply-adds of a step of one sequence: the weights it reads.
int64_t step_work(const Network& network);

// At least 64 bytes. Throws where the network takes no steps, or B is negative or too large.
size_t step_workspace(const fusedrnn_frozen& frozen, int64_t B);

// On this thread alone, in such a workspace: allocates nothing, takes no lock, cannot fail.
void step_alone(const fusedrnn_frozen& frozen, const NetworkStep& step, void* workspace) noexcept;

// The same bits, step after step of B sequences: what is the same in each is found once, and layers
// with much to do run on a team of threads where that is quicker. Of one call at a time.
class FrozenSteps {
 public:
  FrozenSteps(const fusedrnn_frozen& frozen, int64_t B);

  int64_t batch() const { return batch_; }
  // May allocate, and throw before anything is written.
  void take(const NetworkStep& step) const;

 private:
  const fusedrnn_frozen& frozen_;
  const int64_t batch_;
  const Block workspace_;
  std::vector<cpu::StepPointer> layers_;
  std::vector<cpu::TeamStepsPointer> teams_;  // null where there is little to do
};

}  // namespace fusedrnn
