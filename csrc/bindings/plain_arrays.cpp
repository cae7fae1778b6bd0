#include "bindings/plain_arrays.h"

#include <utility>

#include "bindings/array_arguments.h"
#include "bindings/numpy_types.h"

namespace fusedrnn::bindings {
namespace {

// NumPy's own allocator is faster below; above, memory that was used before is.
constexpr int64_t kSmallBytes = 4096;

}  // namespace

bool PlainArray::see(PyObject* object, bool keeps) {
  release();
  if (py::detail::npy_api::get().PyArray_Type_ == Py_TYPE(object)) return see_numpy(object, keeps);
  const ExchangeTable* const table = exchange_table(Py_TYPE(object));
  if (table == nullptr) return false;
  DLTensor seen;
  const bool owns = keeps || table->look == nullptr;
  if (!look_at(*table, object, seen, owns ? &managed_ : nullptr)) return false;
  tensor_ = seen;
  tensor_.data = data_of(seen);
  tensor_.byte_offset = 0;
  for (int i = 0; i < seen.ndim; ++i) {
    shape_[i] = seen.shape[i];
    strides_[i] = stride_of(seen, i);
  }
  tensor_.shape = shape_;
  tensor_.strides = strides_;
  writable_ = managed_ == nullptr || (managed_->flags & DLPACK_FLAG_BITMASK_READ_ONLY) == 0;
  return true;
}

bool PlainArray::see_numpy(PyObject* object, bool keeps) {
  using NumPy = py::detail::npy_api;
  const auto* array = py::detail::array_proxy(object);
  DLDataType dtype;
  if (array->nd > kMaxRank - 2 || (array->flags & NumPy::NPY_ARRAY_ALIGNED_) == 0 ||
      !plain_dtype(array->descr, dtype)) {
    return false;
  }
  const int64_t item = dtype.bits / 8;
  tensor_ = {array->data, {kDLCPU, 0}, array->nd, dtype, shape_, strides_, 0};
  for (int i = 0; i < array->nd; ++i) {
    shape_[i] = array->dimensions[i];
    strides_[i] = array->strides[i] / item;
    if (shape_[i] > 1 && array->strides[i] % item != 0) return false;
  }
  writable_ = (array->flags & NumPy::NPY_ARRAY_WRITEABLE_) != 0;
  if (keeps) owner_ = Py_NewRef(object);
  return true;
}

void PlainArray::set(void* data, DLDataType dtype, const Shape& shape) {
  tensor_ = {data, {kDLCPU, 0}, shape.rank(), dtype, shape_, strides_, 0};
  int64_t stride = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    shape_[i] = shape.begin()[i];
    strides_[i] = stride;
    stride *= shape_[i];
  }
}

bool PlainArray::is_dense() const {
  int64_t stride = 1;
  for (int i = tensor_.ndim - 1; i >= 0; --i) {
    if (shape_[i] > 1 && strides_[i] != stride) return false;
    stride *= shape_[i];
  }
  return true;
}

void PlainArray::insert_axis(int axis) {
  for (int i = tensor_.ndim++; i > axis; --i) {
    shape_[i] = shape_[i - 1];
    strides_[i] = strides_[i - 1];
  }
  shape_[axis] = strides_[axis] = 1;
}

void PlainArray::swap_first_axes() {
  std::swap(shape_[0], shape_[1]);
  std::swap(strides_[0], strides_[1]);
}

void PlainArray::release() {
  if (managed_ != nullptr && managed_->deleter != nullptr) managed_->deleter(managed_);
  managed_ = nullptr;
  Py_CLEAR(owner_);
}

bool wants_gradient(PyObject* array) {
  if (py::detail::npy_api::get().PyArray_Type_ == Py_TYPE(array)) return false;
  static PyObject* const name = PyUnicode_InternFromString("requires_grad");  // is never deleted
  PyObject* const answer = PyObject_GetAttr(array, name);
  if (answer == nullptr) {
    PyErr_Clear();
    return false;
  }
  Py_DECREF(answer);
  return answer == Py_True;
}

py::object new_numpy_array(PyObject* descr, const Shape& shape, void** data) {
  static_assert(sizeof(Py_intptr_t) == sizeof(int64_t));
  auto& numpy = py::detail::npy_api::get();
  Py_INCREF(descr);  // the call takes it
  auto array = py::reinterpret_steal<py::object>(numpy.PyArray_NewFromDescr_(
      numpy.PyArray_Type_, descr, shape.rank(), reinterpret_cast<const Py_intptr_t*>(shape.begin()),
      nullptr, nullptr, 0, nullptr));
  if (!array) throw py::error_already_set();
  *data = py::detail::array_proxy(array.ptr())->data;
  return array;
}

ResultsLike::ResultsLike(PyObject* array) {
  if (py::detail::npy_api::get().PyArray_Type_ == Py_TYPE(array)) {
    PyObject* const descr = py::detail::array_proxy(array)->descr;
    // The package's own type in the place of bfloat16 is not what its users see.
    const auto* proxy = py::detail::array_descriptor_proxy(descr);
    if (proxy->kind == 'V' && !is_registered(proxy->type_num)) return;
    descr_ = py::reinterpret_borrow<py::object>(descr);
  } else {
    table_ = exchange_table(Py_TYPE(array));
  }
}

py::object ResultsLike::make(DLDataType dtype, const Shape& shape, void** data,
                             bool swapped) const {
  if (table_ != nullptr) return new_array(*table_, dtype, shape, data, swapped);
  if (shape.count() * dtype.bits / 8 <= kSmallBytes)
    return new_numpy_array(descr_.ptr(), shape, data);
  py::object array = empty_array(py::reinterpret_borrow<py::dtype>(descr_), shape);
  *data = py::detail::array_proxy(array.ptr())->data;
  return array;
}

}  // namespace fusedrnn::bindings
