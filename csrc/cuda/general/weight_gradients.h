// What follows the walk through time, from the gates' gradients (delta) of all steps:
//   of a matrix delta^T inputs, of a vector the sum of delta, of x delta W
// Deltas are zero where a step does not exist, but what x and the states hold there may be NaN:
// they are then read by way of a copy with zeros.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "cuda/general/backward_walk.h"

namespace fusedrnn::cuda {

class WeightGradients {
 public:
  // `padded`: whether there may be steps that do not exist.
  WeightGradients(const BackwardCall& call, const States& states, bool padded, Layout& layout);

  void use(char* memory) { memory_ = memory; }
  void launch(const Deltas& deltas, const Products& products) const;

 private:
  void reserve_inputs(Layout& layout);
  void reserve_results(Layout& layout);
  // Rows of all steps as the products read them.
  Matrix inputs(const Sequence& rows, int64_t n, Dtype dtype, bool staged,
                cudaStream_t stream) const;
  void weights(const Deltas& deltas, const Products& products, const cells::Product& product,
               int first_delta, const Matrix& inputs) const;
  void input_weights(const Deltas& deltas, const Products& products) const;
  void stage_weights(const Deltas& deltas, const Products& products, int stage) const;
  void input_gradient(const Deltas& deltas, const Products& products) const;
  std::vector<VectorSum> vectors() const;

  int64_t rows() const { return p_.T * p_.B; }
  bool in_order() const;     // whether the input deltas stand in the order of the gates
  bool writes_edge() const;  // whether a product may write the caller's type
  bool wanted(int parameter) const { return call_.dparameters[parameter].data != nullptr; }
  bool in_place(int parameter) const;
  std::optional<RowGroups> dx_groups() const;  // none: dx is copied from a result of our own

  const BackwardCall& call_;
  const Problem& p_;
  const States& states_;
  const Run& run_;
  const Types& types_;
  const bool padded_;
  const bool stage_x_, stage_states_;
  StagedMatrix input_weights_;
  const std::vector<VectorSum> vectors_;
  size_t inputs_ = 0, results_ = 0, parts_ = 0;  // offsets
  char* memory_ = nullptr;
};

}  // namespace fusedrnn::cuda
