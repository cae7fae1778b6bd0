// The product of the inputs of some steps with W_ih, into the memory of their gates.
#pragma once

#include "cuda/general/products.h"
#include "cuda/general/states.h"

namespace fusedrnn::cuda {

class InputProjection {
 public:
  // Of at most `chunk_steps` steps at a time. Reserves in `layout` room for a copy of the inputs
  // where products cannot read them.
  InputProjection(const Sequence& x, const States& states, int64_t chunk_steps, Layout& layout);

  void use(char* memory) { memory_ = memory; }
  // `w`: W_ih as an operand.
  void run(const Products& products, int64_t first_time, int64_t steps, const Matrix& w) const;

 private:
  const Sequence& x_;
  const States& states_;
  const bool staged_;
  Piece copy_;
  char* memory_ = nullptr;
};

}  // namespace fusedrnn::cuda
