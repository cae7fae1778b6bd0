// Backpropagation through time of the general path: for each step and stage one kernel of gate
// maths, which leaves the gates' gradients (delta), and one product of these with the stage's
// weights.
#pragma once

#include "cuda/general/products.h"
#include "cuda/general/states.h"

namespace fusedrnn::cuda {

// The gradients of all steps: [T][B][ld] Delta, block d from column Run::delta_column(d) on. Zeros
// where a step does not exist.
struct Deltas {
  void* data;
  int64_t ld;
};

class BackwardWalk {
 public:
  BackwardWalk(const BackwardCall& call, const States& states, Layout& layout);

  void use(char* memory) { memory_ = memory; }
  Deltas deltas() const { return {memory_ + delta_, ld_delta_}; }
  void launch(const Products& products, cudaStream_t stream) const;

 private:
  void begin_carry(cudaStream_t stream) const;
  void take_step(const Products& products, int64_t step, cudaStream_t stream) const;
  const void* gradient_behind(const Products& products, int stage, int64_t step) const;
  const void* gradient_of_h(const Products& products, int64_t step) const;
  const void* multiply_deltas(const Products& products, int stage, int64_t step,
                              bool accumulate) const;
  BackwardStep arguments(int stage, int64_t step, const void* product) const;
  void end_carry(const Products& products, cudaStream_t stream) const;

  void* delta_at(int delta, int64_t step) const;
  void* carry(int s) const { return memory_ + carry_[s]; }

  const BackwardCall& call_;
  const Problem& p_;
  const States& states_;
  const Run& run_;
  const int64_t ld_delta_;
  StagedMatrix weights_[kMaxParameters];
  size_t delta_, product_, carry_[kMaxStates] = {};  // offsets
  char* memory_ = nullptr;
};

}  // namespace fusedrnn::cuda
