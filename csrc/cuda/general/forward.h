// The forward pass of the general path: one product projects the inputs of all steps; then for each
// step and stage one product of what it multiplies and one kernel of gate maths.
#pragma once

#include "cuda/general/noise.h"
#include "cuda/general/projection.h"

namespace fusedrnn::cuda {

class GeneralForward {
 public:
  // Reserves in `layout` what the call needs beside the states.
  GeneralForward(const ForwardCall& call, const States& states, const NoiseMasks& noise,
                 int64_t chunk_steps, Layout& layout);

  // How many steps of inputs are projected at a time.
  static int64_t chunk_steps(const Run& run, bool keeps_gates);

  void use(char* memory) {
    memory_ = memory;
    projection_.use(memory);
  }
  void launch(const Products& products) const;

 private:
  void enter_first_step(const Products& products) const;
  void mask_h(const Products& products, int64_t slot) const;
  void project(const Products& products, int64_t step) const;
  void take_step(const Products& products, int64_t step) const;
  void multiply(const Products& products, int stage, int64_t step) const;
  ForwardStep arguments(int stage, int64_t step) const;
  void leave_last_step(const Products& products) const;

  int64_t steps_from(int64_t step) const;  // of the chunk that begins at `step`
  int64_t first_time(int64_t step) const;  // the earliest time of the chunk that `step` is in

  const ForwardCall& call_;
  const Problem& p_;
  const States& states_;
  const NoiseMasks& noise_;
  const Run& run_;
  const int64_t chunk_steps_;
  InputProjection projection_;
  StagedMatrix weights_[kMaxParameters];
  Piece u_, row_;  // row_: what a stage passes to a norm
  char* memory_ = nullptr;
};

}  // namespace fusedrnn::cuda
