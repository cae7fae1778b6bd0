// Backpropagation through time of the general path: for each step and stage one kernel of gate
// maths, which leaves the gates' gradients (delta), and one product of these with the stage's
// weights.
#pragma once

#include "cuda/general/noise.h"
#include "cuda/general/products.h"
#include "cuda/general/states.h"
#include "cuda/kernels/vectors.h"

namespace fusedrnn::cuda {

class BackwardWalk {
 public:
  BackwardWalk(const BackwardCall& call, const States& states, const NoiseMasks& noise,
               Layout& layout);

  void use(char* memory) { memory_ = memory; }
  // Of all steps: block d from column Run::delta_column(d) on.
  Deltas deltas() const {
    return {p_.T * p_.B, run_.delta_columns(), delta_.at(memory_, 0), delta_.ld};
  }
  void launch(const Products& products) const;

 private:
  void begin_carry(const Products& products) const;
  void take_step(const Products& products, int64_t step) const;
  const void* gradient_behind(const Products& products, int stage, int64_t step) const;
  const void* gradient_of_h(const Products& products, int64_t step) const;
  const void* multiply_deltas(const Products& products, int stage, int64_t step,
                              bool accumulate) const;
  BackwardStep arguments(int stage, int64_t step, const void* product) const;
  void end_carry(const Products& products) const;

  void* delta_at(int delta, int64_t step) const;
  // The sums of the reset state's gradient, a row a sequence; null where it is not wanted.
  void* resets_at(int s) const {
    return call_.dreset_state[s].data == nullptr ? nullptr : resets_[s].at(memory_, 0);
  }

  const BackwardCall& call_;
  const Problem& p_;
  const States& states_;
  const NoiseMasks& noise_;
  const Run& run_;
  StagedMatrix weights_[kMaxParameters];
  Piece delta_, product_, carry_[kMaxStates], resets_[kMaxStates], flow_[kMaxStates], norms_;
  char* memory_ = nullptr;
};

}  // namespace fusedrnn::cuda
