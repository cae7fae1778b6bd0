// Arrays on the CPU that can be used as they lie, read and made without a call of Python's: those
// of exactly NumPy's type, and those whose type has DLPack's table (bindings/dlpack_exchange.h).
//
// This does nothing but recognise them. Whatever else comes takes the long way, which also finds
// the words for what is wrong.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>

#include "bindings/dlpack_exchange.h"
#include "core/tensor.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

inline bool same_type(DLDataType a, DLDataType b) {
  return a.code == b.code && a.bits == b.bits && a.lanes == b.lanes;
}

// Not movable, because `tensor` points into it.
class PlainArray {
 public:
  PlainArray() = default;
  ~PlainArray() { release(); }
  PlainArray(const PlainArray&) = delete;
  PlainArray& operator=(const PlainArray&) = delete;

  // False, without a Python error, where it is no such array. `keeps`: the array lives as long as
  // this; else the caller keeps the GIL as long as it is used. Who gives a tensor other memory in
  // the meantime (`tensor.data = ...`) takes it from this as from PyTorch's own operators.
  bool see(PyObject* object, bool keeps);

  // Memory of ours, dense.
  void set(void* data, DLDataType dtype, const Shape& shape);

  // With the axes that the array has, and what is done to them below.
  const DLTensor& tensor() const { return tensor_; }
  DLTensor& tensor() { return tensor_; }
  int64_t extent(int axis) const { return shape_[axis]; }
  bool is_dense() const;
  bool is_flags() const {  // bytes that are zero or not
    const DLDataType type = tensor_.dtype;
    return type.bits == 8 && type.lanes == 1 && (type.code == kDLBool || type.code == kDLUInt);
  }
  bool is_writable() const { return writable_; }

  void insert_axis(int axis);
  void swap_first_axes();

 private:
  bool see_numpy(PyObject* object, bool keeps);
  void release();

  DLTensor tensor_{};
  int64_t shape_[kMaxRank];
  int64_t strides_[kMaxRank];
  bool writable_ = true;
  DLManagedTensorVersioned* managed_ = nullptr;
  PyObject* owner_ = nullptr;
};

// Whether PyTorch's autograd waits for a gradient of an array: the long way of what gives none says
// so. Of NumPy's nothing is asked.
bool wants_gradient(PyObject* array);

// By NumPy's own allocator: small arrays come faster than we could wrap memory of ours. `data`:
// where the elements are to be written.
py::object new_numpy_array(PyObject* descr, const Shape& shape, void** data);

// Results of the kind of an array.
class ResultsLike {
 public:
  explicit ResultsLike(PyObject* array);

  // Whether there are such.
  explicit operator bool() const { return table_ != nullptr || descr_; }

  // `swapped`: as new_array's, of which NumPy has none here.
  py::object make(DLDataType dtype, const Shape& shape, void** data, bool swapped = false) const;
  // Whether they are of any type and may be swapped.
  bool has_table() const { return table_ != nullptr; }

 private:
  const ExchangeTable* table_ = nullptr;
  py::object descr_;  // NumPy's
};

}  // namespace fusedrnn::bindings
