// How a product reads or writes rows (t,b) of the caller's arrays: where they lie, if it can, and
// otherwise by way of a dense copy.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <optional>

#include "core/problem.h"
#include "cuda/gemm/gemm.h"
#include "cuda/runtime/layout.h"

namespace fusedrnn::cuda {

size_t item_bytes(Dtype dtype);

// Offset by whole elements.
inline const void* advance(const void* data, int64_t elements, Dtype dtype) {
  return static_cast<const char*>(data) + elements * static_cast<int64_t>(item_bytes(dtype));
}
inline void* advance(void* data, int64_t elements, Dtype dtype) {
  return static_cast<char*>(data) + elements * static_cast<int64_t>(item_bytes(dtype));
}

// The stride of rows of n elements in memory of our own: whole groups of 16 bytes, which the
// fastest kernels of a product ask for, whatever the type.
inline int64_t row_stride(int64_t n) { return (n + 7) / 8 * 8; }

// T*B rows as `batch` groups of `rows` rows of equal strides.
struct RowGroups {
  enum Kind { flat, by_step, by_sequence };
  Kind kind;
  int64_t rows, stride;
  int64_t batch, batch_stride;
};

// The fewest groups that [T,B,n] can be read as; none where a product cannot read it: overlapping
// rows, negative strides.
std::optional<RowGroups> groups_of(const Sequence& sequence, int64_t T, int64_t B, int64_t n);

// The same rows of a dense [T,B] array with `ld` elements a row.
RowGroups dense_groups(RowGroups::Kind kind, int64_t T, int64_t B, int64_t ld);

inline Sequence dense_sequence(void* data, int64_t B, int64_t ld) { return {data, B * ld, ld}; }

// T*B rows of n numbers as a piece of memory of our own, once that lies at `memory`.
struct Piece {
  size_t offset = 0;
  int64_t ld = 0;  // numbers from one row to the next
  Dtype type{};

  Piece() = default;  // of nothing
  Piece(Layout& layout, int64_t T, int64_t B, int64_t n, Dtype dtype)
      : offset(layout.reserve({T, B, row_stride(n)}, item_bytes(dtype))),
        ld(row_stride(n)),
        type(dtype) {}

  void* at(char* memory, int64_t row) const { return advance(memory + offset, row * ld, type); }
};

// Whether a product can read rows of n numbers at these strides.
bool readable(const Matrix& matrix, int64_t rows, int64_t n);

// A matrix as an operand of type `wanted`: in place, or a copy in memory that reserve() asked for.
class StagedMatrix {
 public:
  StagedMatrix() = default;  // of no matrix
  StagedMatrix(const Matrix& matrix, int64_t rows, int64_t n, Dtype dtype, Dtype wanted,
               bool copy_always = false);

  void reserve(Layout& layout);
  // Where the operand lies, once the call has memory at `memory`.
  Matrix place(char* memory) const;
  // Copies rows [from, from + count) to [to, to + count), if there is a copy.
  void copy(char* memory, int64_t from, int64_t to, int64_t count, cudaStream_t stream) const;
  void copy(char* memory, cudaStream_t stream) const { copy(memory, 0, 0, rows_, stream); }
  bool staged() const { return staged_; }

 private:
  Matrix matrix_;
  int64_t rows_ = 0, n_ = 0;
  Dtype dtype_{}, wanted_{};
  bool staged_ = false;
  Piece copy_;
};

}  // namespace fusedrnn::cuda
