// Backpropagation through time of the general path: for each step and phase one kernel of gate
// maths, which leaves the gates' gradients (delta), and one product of these with W_hh.
#pragma once

#include "cuda/general/products.h"
#include "cuda/general/states.h"

namespace fusedrnn::cuda {

// The gates' gradients of all steps: [T][B][ld] Delta, block d of unit u at column d*H + u. Zeros
// where a step does not exist.
struct Deltas {
  void* data;
  int64_t ld;
};

class BackwardWalk {
 public:
  BackwardWalk(const BackwardCall& call, const States& states, const uint8_t* flags,
               Layout& layout);

  void use(char* memory) { memory_ = memory; }
  Deltas deltas() const { return {memory_ + delta_, ld_delta_}; }
  void launch(const Products& products, cudaStream_t stream) const;

 private:
  void begin_carry(cudaStream_t stream) const;
  void take_step(const Products& products, int64_t step, cudaStream_t stream) const;
  void multiply_deltas(const Products& products, int source, int64_t time) const;
  BackwardStep arguments(int phase, int64_t step) const;
  void end_carry(const Products& products, cudaStream_t stream) const;

  void* delta_at(int64_t time) const;
  void* carry(int s) const { return memory_ + carry_[s]; }
  const uint8_t* flags_at(int64_t step) const;

  const BackwardCall& call_;
  const Problem& p_;
  const States& states_;
  const uint8_t* const flags_;
  const int64_t ld_delta_, ld_product_;
  StagedMatrix w_hh_;
  size_t delta_, product_, carry_[kMaxStates] = {};  // offsets
  char* memory_ = nullptr;
};

}  // namespace fusedrnn::cuda
