// Arrays of Python's in memory: NumPy's natively, all others through DLPack, or on a CUDA device
// the CUDA Array Interface.
#pragma once

#include <pybind11/numpy.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "bindings/dlpack.h"
#include "bindings/place.h"
#include "core/tensor.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

inline bool same_type(DLDataType a, DLDataType b) {
  return a.code == b.code && a.bits == b.bits && a.lanes == b.lanes;
}

// A DLTensor over somebody else's memory. Shape and strides are copied: another thread may assign
// array.shape while a kernel runs without the GIL. Not movable, because `tensor` points into the
// struct.
struct TensorView {
  DLTensor tensor{};
  int64_t shape[kMaxRank];
  int64_t strides[kMaxRank];  // in elements

  TensorView() {}  // shape and strides are not set: a step makes many
  TensorView(const TensorView&) = delete;
  TensorView& operator=(const TensorView&) = delete;

  // A tensor whose axes fit.
  void view(const DLTensor& other) {
    tensor = other;
    tensor.data = other.data == nullptr ? nullptr : data_of(other);
    tensor.byte_offset = 0;
    tensor.shape = shape;
    tensor.strides = strides;
    for (int i = 0; i < other.ndim; ++i) {
      shape[i] = other.shape[i];
      strides[i] = stride_of(other, i);
    }
  }

  // Dense memory on the CPU.
  void view(void* data, DLDataType dtype, const Shape& extents) {
    tensor = {data, {kDLCPU, 0}, extents.rank(), dtype, shape, strides, 0};
    int64_t stride = 1;
    for (int i = extents.rank() - 1; i >= 0; --i) {
      shape[i] = extents.begin()[i];
      strides[i] = stride;
      stride *= shape[i];
    }
  }

  bool is_aligned() const {
    return reinterpret_cast<uintptr_t>(tensor.data) % static_cast<uintptr_t>(item_size(tensor)) ==
           0;
  }
  bool is_dense() const {
    int64_t stride = 1;
    for (int i = tensor.ndim - 1; i >= 0; --i) {
      if (shape[i] > 1 && strides[i] != stride) return false;
      stride *= std::max<int64_t>(shape[i], 1);
    }
    return true;
  }

  // A new axis of one element before axis `axis`, and back.
  void insert_axis(int axis) {
    for (int i = tensor.ndim++; i > axis; --i) {
      shape[i] = shape[i - 1];
      strides[i] = strides[i - 1];
    }
    shape[axis] = strides[axis] = 1;
  }
  void remove_axis(int axis) {
    --tensor.ndim;
    for (int i = axis; i < tensor.ndim; ++i) {
      shape[i] = shape[i + 1];
      strides[i] = strides[i + 1];
    }
  }
  void swap_first_axes() {
    std::swap(shape[0], shape[1]);
    std::swap(strides[0], strides[1]);
  }
};

// Over somebody else's array, whose memory it keeps alive.
struct ArrayView : TensorView {
  bool whole_strides = true;  // a field of a packed struct has any number of bytes
  bool read_only = false;     // whether its owner does not want it written to
  py::object owner;           // of the memory; null where there is none

  ArrayView() {}
  ~ArrayView() {
    if (managed_ != nullptr) give_back();
  }

  // Without a call of Python's: an array on the CPU that can be used as it lies, of exactly NumPy's
  // type or of one with DLPack's table, in a type that networks compute in or bytes. False, without
  // a Python error, where it is none: whatever else comes takes the long way, which also finds the
  // words for what is wrong. Without `keeps` the caller keeps the array, and the GIL as long as
  // this is used. Who gives a tensor other memory in the meantime (`tensor.data = ...`) takes it
  // from this as from PyTorch's own operators.
  bool see(PyObject* object, bool keeps);

  // Of any library; `place` as for InputArray. Returns the array whose memory it is, which is not
  // the one that was given where that one is watched by autograd.
  py::object read(const Name& name, py::handle object, ElementKind kind, Place* place);

  void set(const Name& name, const py::array& array, ElementKind kind);
  void set(const Name& name, LentTensor lent);

  bool is_flags() const {  // bytes that are zero or not
    const DLDataType type = tensor.dtype;
    return type.bits == 8 && type.lanes == 1 && (type.code == kDLBool || type.code == kDLUInt);
  }

 private:
  bool see_numpy(PyObject* object, bool keeps);
  void give_back();

  DLManagedTensorVersioned* managed_ = nullptr;  // that was seen
};

// Whether PyTorch's autograd waits for a gradient of an array. Of NumPy's nothing is asked.
bool wants_gradient(py::handle array);

// Autograd's tensors refuse to be exported, but what they hold may be read.
py::object without_gradient(const Name& name, py::handle object);

// Whether its elements lie aligned and in the order of its axes.
bool is_dense(const py::array& array);

}  // namespace fusedrnn::bindings
