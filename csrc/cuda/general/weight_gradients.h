// What follows the walk through time, from the gates' gradients (delta) of all steps, or of one
// chunk of them after the other:
//   of a matrix delta^T inputs, of a vector the sum of delta, of x delta W
// Deltas are zero where a step does not exist, but what x and the states hold there may be NaN:
// they are then read by way of a copy with zeros.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "cuda/general/backward_walk.h"
#include "cuda/kernels/copy.h"

namespace fusedrnn::cuda {

// Steps from a time on, whose deltas are at hand.
struct Chunk {
  int64_t time, steps;
  bool first, last;  // of those that live
};

class WeightGradients {
 public:
  // `padded`: whether there may be steps that do not exist.
  WeightGradients(const BackwardCall& call, const States& states, int64_t chunk_steps, bool padded,
                  Layout& layout);

  void use(char* memory) { memory_ = memory; }
  void add(const Deltas& deltas, const Chunk& chunk, const Products& products) const;

 private:
  void reserve_inputs(Layout& layout);
  void reserve_results(Layout& layout);
  // Rows of the chunk's steps as the products read them.
  Matrix inputs(const Sequence& rows, Rows place, const Chunk& chunk, int64_t n, Dtype dtype,
                bool staged, cudaStream_t stream) const;
  int64_t parts_before(int64_t time) const;
  void weights(const Deltas& deltas, const Chunk& chunk, const Products& products,
               const cells::Product& product, int first_delta, const Matrix& inputs) const;
  void input_weights(const Deltas& deltas, const Chunk& chunk, const Products& products) const;
  void stage_weights(const Deltas& deltas, const Chunk& chunk, const Products& products,
                     int stage) const;
  void vector_gradients(const Deltas& deltas, const Chunk& chunk, const Products& products) const;
  void input_gradient(const Deltas& deltas, const Chunk& chunk, const Products& products) const;
  std::vector<VectorSum> vectors() const;

  bool several() const { return chunk_steps_ < p_.T; }
  int64_t rows() const { return chunk_steps_ * p_.B; }  // of a chunk
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
  const int64_t chunk_steps_;
  const bool padded_;
  const bool stage_x_, stage_states_;
  StagedMatrix input_weights_;
  const std::vector<VectorSum> vectors_;
  Piece totals_[kMaxParameters];
  size_t inputs_ = 0, results_ = 0, parts_ = 0;  // offsets
  char* memory_ = nullptr;
};

}  // namespace fusedrnn::cuda
