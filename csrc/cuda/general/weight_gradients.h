// What follows the walk through time, from the gates' gradients (delta) of all steps:
//   dw = delta^T inputs     db = sum of delta     dx = delta W_ih
// Deltas are zero where a step does not exist, but what x and the states hold there may be NaN:
// they are then read by way of a copy with zeros.
#pragma once

#include <algorithm>
#include <optional>

#include "cuda/general/backward_walk.h"

namespace fusedrnn::cuda {

class WeightGradients {
 public:
  // `padded`: whether there may be steps that do not exist.
  WeightGradients(const BackwardCall& call, const States& states, const uint8_t* flags, bool padded,
                  Layout& layout);

  void use(char* memory) { memory_ = memory; }
  void launch(const Deltas& deltas, const Products& products, cudaStream_t stream) const;

 private:
  // Rows of all steps as the products read them.
  struct Inputs {
    const void* data;
    int64_t stride;
  };

  void reserve_inputs(Layout& layout);
  void reserve_results(Layout& layout);
  Inputs inputs(const Sequence& rows, int64_t n, Dtype dtype, bool staged,
                cudaStream_t stream) const;
  void weights(const Deltas& deltas, const Products& products, int first_gate, int gates,
               int first_block, const Inputs& inputs, int64_t columns, const Matrix& dw,
               cudaStream_t stream) const;
  void input_weights(const Deltas& deltas, const Products& products, cudaStream_t stream) const;
  void recurrent_weights(const Deltas& deltas, const Products& products, cudaStream_t stream) const;
  void input_gradient(const Deltas& deltas, const Products& products, cudaStream_t stream) const;
  void biases(const Deltas& deltas, cudaStream_t stream) const;

  int64_t rows() const { return p_.T * p_.B; }
  bool in_order() const;     // whether the input deltas stand in the order of the gates
  bool writes_edge() const;  // whether a product may write the caller's type
  bool in_place(const Matrix& dw, int64_t columns) const;
  std::optional<RowGroups> dx_groups() const;  // none: dx is copied from a result of our own

  const BackwardCall& call_;
  const Problem& p_;
  const States& states_;
  const CellShape& cell_;
  const Unit& unit_;
  const uint8_t* const flags_;
  const bool padded_;
  const bool stage_x_, stage_states_;
  StagedMatrix w_ih_;
  size_t inputs_ = 0, results_ = 0, bias_parts_ = 0;  // offsets
  char* memory_ = nullptr;
};

}  // namespace fusedrnn::cuda
