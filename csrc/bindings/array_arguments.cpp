#include "bindings/array_arguments.h"

#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/new_arrays.h"
#include "bindings/numpy_types.h"
#include "core/error.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {
namespace {

// Whether it is a list, a range, ...: values in a row that are no array. Texts and bytes are none.
bool is_sequence(py::handle object) {
  PyObject* p = object.ptr();
  return PyUnicode_Check(p) == 0 && PyBytes_Check(p) == 0 && PyByteArray_Check(p) == 0 &&
         !py::hasattr(object, "__dlpack__") && is_instance(object, "collections.abc", "Sequence");
}

// A sequence of Python ints. A copy as a tuple first: __index__ of an element may change a list.
py::array integers(const Name& name, py::handle sequence) {
  const auto items = py::reinterpret_steal<py::tuple>(PySequence_Tuple(sequence.ptr()));
  if (!items) {
    py::error_already_set error;
    rethrow(error, name, "__iter__", sequence);
  }
  py::array result = empty_array(py::dtype::of<int64_t>(), {static_cast<int64_t>(items.size())});
  auto* values = static_cast<int64_t*>(result.mutable_data());
  for (size_t i = 0; i < items.size(); ++i) {
    const py::handle item = items[i];
    values[i] = int_argument(name, item, " at index " + std::to_string(i));
  }
  return result;
}

}  // namespace

// --- inputs ---

InputArray::InputArray(const Name& name, py::handle object, ElementKind kind, Place* place)
    : name_(name), kind_(kind), given_(!object.is_none()) {
  if (given_ && kind == ElementKind::integer && is_sequence(object)) {
    view_.set(name, integers(name, object), kind);
  } else if (given_) {
    py::object source = view_.read(name, object, kind, place);
    if (!is_host(view_.tensor.device)) {
      place_ = place;
      source_ = std::move(source);
    }
  }
  if (place != nullptr) place->settle();
}

bool InputArray::is_readable() const {
  const DLTensor& t = view_.tensor;
  if (!view_.whole_strides) return false;
  if (kind_ != ElementKind::floating) return true;  // core reads lengths and resets one by one
  if (!view_.is_aligned()) return false;
  return t.ndim == 0 || t.shape[t.ndim - 1] <= 1 || t.strides[t.ndim - 1] == 1;
}

void InputArray::make_readable() {
  if (!given_ || is_readable()) return;
  if (inserted_ >= 0) view_.remove_axis(inserted_);
  copy_to_readable();
  if (inserted_ >= 0) view_.insert_axis(inserted_);
}

void InputArray::copy_to_readable() {
  if (place_ != nullptr) {
    // By its own library, on its current stream, with which DLPack's protocol then orders ours.
    const py::object copy = cuda_kind_of(source_).attr("contiguous")(source_);
    if (!copy.is_none()) view_.read(name_, copy, kind_, place_);  // else core says what is wrong
    return;
  }
  const py::array source = as_numpy();
  Shape shape{};
  for (int i = 0; i < view_.tensor.ndim; ++i) shape.add(view_.shape[i]);
  const py::array copy = empty_array(source.dtype(), shape);
  if (numpy().PyArray_CopyInto_(copy.ptr(), source.ptr()) != 0) {
    throw py::error_already_set();
  }
  view_.set(name_, copy, kind_);
}

py::array InputArray::as_numpy() const {
  if (py::isinstance<py::array>(view_.owner)) return view_.owner;
  const DLTensor& t = view_.tensor;
  std::vector<py::ssize_t> strides(t.strides, t.strides + t.ndim);
  for (py::ssize_t& stride : strides) stride *= item_size(t);
  py::array array(numpy_dtype(name_, t.dtype), py::array::ShapeContainer(t.shape, t.shape + t.ndim),
                  std::move(strides), t.data, view_.owner);
  if (view_.read_only) array.attr("setflags")(py::arg("write") = false);
  return array;
}

// --- outputs ---

OutputArray::OutputArray(const Name& name, py::handle object, Dtype dtype, const Shape& shape,
                         Place* place)
    : array_(py::reinterpret_borrow<py::object>(object)) {
  const bool given = !object.is_none();
  if (place != nullptr && place->on_cuda()) {
    const DLDevice device{kDLCUDA, place->device()};
    if (given) check_device(name, producer_device(name, array_), device, "x");
    if (!given) keep_inputs(array_ = place->empty(dtype, shape), place->inputs());
    // New arrays were made on the place's own stream, and so were those that the layers give.
    view_.set(name, import_dlpack(name, array_, device));
    return;
  }
  if (!given) {
    py::array array = empty_array(numpy_dtype(dtype), shape);
    view_.view(array.mutable_data(), dtype_info(dtype).dlpack, shape);
    array_ = std::move(array);
    return;
  }
  view_.read(name, array_, ElementKind::floating, nullptr);
  if (view_.read_only) {
    refuse_value(name, "an array to write to", "a read-only one");
  }
  if (!view_.whole_strides) {
    refuse_value(name, "strides that are multiples of the element's size", "others");
  }
}

}  // namespace fusedrnn::bindings
