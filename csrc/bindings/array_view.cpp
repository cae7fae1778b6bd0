#include "bindings/array_view.h"

#include "bindings/numpy_types.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {

void ArrayView::set(const Name& name, const py::array& array, ElementKind kind) {
  static_assert(sizeof(py::ssize_t) == sizeof(int64_t));
  const py::dtype dtype = array.dtype();
  tensor = {};
  tensor.data = const_cast<void*>(array.data());
  tensor.device = {kDLCPU, 0};
  tensor.dtype = dlpack_dtype(name, dtype, kind);
  tensor.ndim = static_cast<int32_t>(array.ndim());
  if (tensor.ndim > kMaxRank) check_header(name, tensor);  // throws
  const int64_t item = dtype.itemsize();
  whole_strides = true;
  for (int i = 0; i < tensor.ndim; ++i) {
    shape[i] = array.shape()[i];
    byte_strides[i] = array.strides()[i];
    strides[i] = byte_strides[i] / item;
    if (shape[i] > 1 && byte_strides[i] % item != 0) whole_strides = false;
  }
  tensor.shape = shape;
  tensor.strides = strides;
}

void ArrayView::set(const Name& name, const DLTensor& other) {
  check_tensor(name, other, nullptr, nullptr, -1);
  tensor = other;
  tensor.data = other.data == nullptr ? nullptr : data_of(other);
  tensor.byte_offset = 0;
  whole_strides = true;
  for (int i = 0; i < tensor.ndim; ++i) shape[i] = other.shape[i];
  for (int i = 0; i < tensor.ndim; ++i) {
    strides[i] = stride_of(other, i);
    byte_strides[i] = strides[i] * item_size(other);
  }
  tensor.shape = shape;
  tensor.strides = strides;
}

void ArrayView::set_dense(void* data) {
  tensor.data = data;
  tensor.strides = nullptr;
  whole_strides = true;
  for (int i = tensor.ndim - 1; i >= 0; --i) {
    strides[i] = stride_of(tensor, i);
    byte_strides[i] = strides[i] * item_size(tensor);
  }
  tensor.strides = strides;
}

bool ArrayView::is_dense() const {
  if (!whole_strides) return false;
  if (reinterpret_cast<uintptr_t>(tensor.data) % static_cast<uintptr_t>(item_size(tensor)) != 0) {
    return false;
  }
  return tensor.ndim == 0 || shape[tensor.ndim - 1] <= 1 || strides[tensor.ndim - 1] == 1;
}

}  // namespace fusedrnn::bindings
