// Tensors with a shape and strides of their own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

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
    std::copy_backward(shape + axis, shape + tensor.ndim, shape + tensor.ndim + 1);
    std::copy_backward(strides + axis, strides + tensor.ndim, strides + tensor.ndim + 1);
    shape[axis] = strides[axis] = 1;
    ++tensor.ndim;
  }
  void remove_axis(int axis) {
    std::copy(shape + axis + 1, shape + tensor.ndim, shape + axis);
    std::copy(strides + axis + 1, strides + tensor.ndim, strides + axis);
    --tensor.ndim;
  }
  void swap_first_axes() {
    std::swap(shape[0], shape[1]);
    std::swap(strides[0], strides[1]);
  }
};

}  // namespace fusedrnn::bindings
