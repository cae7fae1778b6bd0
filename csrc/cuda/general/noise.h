// The masks of the noise within a run, drawn before its launches: a seed is of a call, and no part
// of a graph that is launched again.
#pragma once

#include <cuda_runtime.h>

#include "cuda/general/run.h"
#include "cuda/kernels/copy.h"
#include "cuda/runtime/graphs.h"
#include "cuda/runtime/layout.h"

namespace fusedrnn::cuda {

class NoiseMasks {
 public:
  NoiseMasks(const Run& run, Layout& layout);

  void draw(char* memory, cudaStream_t stream);
  StepNoise of_step(int64_t time) const;
  // Of the steps from `time` on, one behind the other, whose states are known: what changes gates.
  StepNoise of_gates(int64_t time) const;
  // `to` = what the mask of the operands of w_hh leaves of `from`: copy.B rows of n numbers of each
  // of copy.T steps, which lie by place or in the slots of ends, B rows of `ld` numbers a step.
  void mask_operand(const void* from, Dtype from_type, void* to, Dtype to_type, int64_t ld,
                    Copy copy, cudaStream_t stream) const;

 private:
  bool draws_zoneout(int s) const;
  bool draws_candidate() const;
  bool draws_operand() const;

  const Run& run_;
  const Problem& p_;
  size_t zoneout_[kMaxStates] = {}, candidate_ = 0, operand_ = 0;  // offsets
  char* memory_ = nullptr;
};

// What of the noise launches depend on beside masks.
void add_noise(const Noise& noise, GraphKey& key);

}  // namespace fusedrnn::cuda
