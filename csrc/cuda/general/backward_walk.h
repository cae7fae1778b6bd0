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
  // `chunk_steps`: of how many steps deltas exist at a time.
  BackwardWalk(const BackwardCall& call, const States& states, const NoiseMasks& noise,
               int64_t chunk_steps, Layout& layout);

  void use(char* memory) { memory_ = memory; }
  // The times that have to be walked, from 0 on: those with steps that live, in reverse one more,
  // for what goes through the products of the first of them; all where their norms are wanted.
  int64_t times() const;
  // Of the chunk that the states have entered, of so many steps: block d from column
  // Run::delta_column(d) on.
  Deltas deltas(int64_t steps) const {
    return {states_.order().rows(states_.first_time(), steps), run_.delta_columns(),
            delta_.at(memory_, 0), delta_.ld};
  }
  void begin(const Products& products) const;
  // Walks the chunk of `steps` steps that the states have entered, back from step `first` on.
  // `following`: what the walk before returned, the gradient of the h that enters the step after
  // `first`, as far as it goes through products; null: none.
  const void* walk(const Products& products, int64_t first, int64_t steps,
                   const void* following) const;
  void end(const Products& products) const { end_carry(products); }

 private:
  void begin_carry(const Products& products) const;
  void cross_padding(const Products& products) const;
  void take_step(const Products& products, int64_t step, const void* following) const;
  void find_norms(const Products& products, int64_t first_time, int64_t steps) const;
  const void* gradient_of_h(const Products& products, int64_t step) const;
  const void* multiply_deltas(const Products& products, int stage, int64_t step,
                              bool accumulate) const;
  BackwardStep arguments_of(int stage, int64_t step, const void* product) const;
  void end_carry(const Products& products) const;

  void* delta_at(int delta, int64_t step) const;
  int64_t last_step() const { return p_.reverse ? p_.T - times() : 0; }  // of the walk
  bool wants_flow() const { return norms_.ld != 0; }
  int64_t living(int64_t step) const { return states_.order().living(states_.slots().time(step)); }
  // Rows whose states have gradients to receive: of those that do not live, those of the sequences
  // whose first step is the one that follows in reverse.
  int64_t walked(int64_t step) const;
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
  // Gradients of a step's normalised numbers, and of the row that a stage passed to a norm.
  Piece normed_, passed_;
  char* memory_ = nullptr;
};

}  // namespace fusedrnn::cuda
