// The forward pass of the general path: one product projects the inputs of all steps; then for each
// step and stage one product of what it multiplies and one kernel of gate maths.
#pragma once

#include "cuda/general/noise.h"
#include "cuda/general/projection.h"
#include "cuda/kernels/copy.h"

namespace fusedrnn::cuda {

class GeneralForward {
 public:
  // Reserves in `layout` what the call needs beside the states.
  // `shows_padding`: whether y holds the state where a step does not exist.
  GeneralForward(const ForwardCall& call, States& states, const NoiseMasks& noise,
                 bool shows_padding, Layout& layout);

  // How many steps of all sequences have their inputs projected at a time.
  static int64_t chunk_steps(const Run& run);

  void use(char* memory) {
    memory_ = memory;
    projection_.use(memory);
  }
  void launch(const Products& products) const;

 private:
  void enter_first_step(const Products& products) const;
  void mask_h(const Products& products, int64_t slot, int64_t rows,
              Rows place = Rows::places) const;
  void take_step(const Products& products, int64_t step) const;
  void multiply(const Products& products, int stage, int64_t step) const;
  ForwardStep arguments(int stage, int64_t step) const;
  void leave_last_step(const Products& products) const;
  void write_padding(const Products& products) const;
  // Of `n` numbers of so many sequences, one step.
  Copy copy_of(int64_t rows, int64_t n) const;

  int64_t steps_from(int64_t step) const;  // of the chunk that begins at `step`
  int64_t living(int64_t step) const { return states_.order().living(states_.slots().time(step)); }

  const ForwardCall& call_;
  const Problem& p_;
  States& states_;
  const NoiseMasks& noise_;
  const Run& run_;
  const bool shows_padding_;
  const int64_t chunk_steps_;
  InputProjection projection_;
  StagedMatrix weights_[kMaxParameters];
  Piece u_, row_;  // row_: what a stage passes to a norm
  char* memory_ = nullptr;
};

}  // namespace fusedrnn::cuda
