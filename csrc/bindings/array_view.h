// A DLTensor over somebody else's array, with room for its shape and strides.
#pragma once

#include <pybind11/numpy.h>

#include "core/tensor.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

// Shape and strides are copied: another thread may assign array.shape while a kernel runs without
// the GIL. Not movable, because `tensor` points into the struct.
struct ArrayView {
  DLTensor tensor{};
  int64_t shape[kMaxRank];
  int64_t strides[kMaxRank];       // in elements, as far as whole_strides says they can be
  int64_t byte_strides[kMaxRank];  // a field of a packed struct has any number of bytes
  bool whole_strides = true;

  ArrayView() = default;
  ArrayView(const ArrayView&) = delete;
  ArrayView& operator=(const ArrayView&) = delete;

  void set(const Name& name, const py::array& array, ElementKind kind);
  void set(const Name& name, const DLTensor& other);

  // `data` holds the elements of the tensor, dense and in row-major order.
  void set_dense(void* data);

  // False where only a copy can be given to code that knows strides in elements.
  bool is_regular() const { return whole_strides; }
  // Also with a dense last axis, and aligned to the element.
  bool is_dense() const;
};

}  // namespace fusedrnn::bindings
