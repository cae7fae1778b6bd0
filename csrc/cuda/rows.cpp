#include "cuda/rows.h"

#include "cuda/kernels/copy.h"

namespace fusedrnn::cuda {

size_t item_bytes(Dtype dtype) {
  switch (dtype) {
    case Dtype::float64:
      return 8;
    case Dtype::bfloat16:
    case Dtype::float16:
      return 2;
    case Dtype::dual32:
      return 8;
    case Dtype::dual64:
      return 16;
    case Dtype::float32:
      break;
  }
  return 4;
}

std::optional<RowGroups> groups_of(const Sequence& s, int64_t T, int64_t B, int64_t n) {
  // Along an axis of one element any stride will do.
  const bool one_step = T == 1, one_sequence = B == 1;
  const auto wide = [n](int64_t stride) { return stride >= n; };
  if (one_step && one_sequence) return RowGroups{RowGroups::flat, 1, n, 1, 0};
  if (one_step && wide(s.b_stride)) return RowGroups{RowGroups::flat, B, s.b_stride, 1, 0};
  if (one_sequence && wide(s.t_stride)) return RowGroups{RowGroups::flat, T, s.t_stride, 1, 0};
  if (wide(s.b_stride) && s.t_stride == B * s.b_stride) {
    return RowGroups{RowGroups::flat, T * B, s.b_stride, 1, 0};
  }
  const bool steps = wide(s.b_stride) && s.t_stride >= 0;
  const bool sequences = wide(s.t_stride) && s.b_stride >= 0;
  if (sequences && (!steps || B < T)) {
    return RowGroups{RowGroups::by_sequence, T, s.t_stride, B, s.b_stride};
  }
  if (steps) return RowGroups{RowGroups::by_step, B, s.b_stride, T, s.t_stride};
  return std::nullopt;
}

RowGroups dense_groups(RowGroups::Kind kind, int64_t T, int64_t B, int64_t ld) {
  switch (kind) {
    case RowGroups::by_step:
      return {kind, B, ld, T, B * ld};
    case RowGroups::by_sequence:
      return {kind, T, B * ld, B, ld};
    case RowGroups::flat:
      break;
  }
  return {RowGroups::flat, T * B, ld, 1, 0};
}

bool readable(const Matrix& matrix, int64_t rows, int64_t n) {
  return rows == 1 || matrix.stride >= n;
}

StagedMatrix::StagedMatrix(const Matrix& matrix, int64_t rows, int64_t n, Dtype dtype, Dtype wanted,
                           bool copy_always)
    : matrix_(matrix),
      rows_(rows),
      n_(n),
      dtype_(dtype),
      wanted_(wanted),
      staged_(copy_always || dtype != wanted || !readable(matrix, rows, n)) {}

void StagedMatrix::reserve(Layout& layout) {
  if (staged_) copy_ = Piece(layout, 1, rows_, n_, wanted_);
}

Matrix StagedMatrix::place(char* memory) const {
  if (staged_) return {copy_.at(memory, 0), copy_.ld};
  return {matrix_.data, rows_ == 1 ? n_ : matrix_.stride};
}

void StagedMatrix::copy(char* memory, int64_t from, int64_t to, int64_t count,
                        cudaStream_t stream) const {
  if (!staged_) return;
  copy_matrix({advance(matrix_.data, from * matrix_.stride, dtype_), matrix_.stride}, dtype_,
              {copy_.at(memory, to), copy_.ld}, wanted_, count, n_, stream);
}

}  // namespace fusedrnn::cuda
