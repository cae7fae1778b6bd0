#include "bindings/array_import.h"

#include <memory>
#include <string>
#include <utility>

#include "bindings/arguments.h"
#include "bindings/array_export.h"
#include "bindings/cuda_interface.h"
#include "bindings/dlpack_import.h"
#include "bindings/numpy_types.h"
#include "core/error.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {
namespace {

bool is_instance(py::handle object, const char* module, const char* type) {
  return py::isinstance(object, py::module_::import(module).attr(type));
}

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
  const auto n = static_cast<int64_t>(items.size());
  py::array result = empty_array(py::dtype::of<int64_t>(), {n});
  auto* values = static_cast<int64_t*>(result.mutable_data());
  for (int64_t i = 0; i < n; ++i) {
    const py::handle item = items[static_cast<size_t>(i)];
    values[i] = int_argument(name, item, " at index " + std::to_string(i));
  }
  return result;
}

// Whether it is a view that PyTorch negates as it is read, such as the imaginary part of a
// conjugate: it would be exported without its sign.
bool is_negated(const Name& name, py::handle object) {
  // A class has properties in the place of these attributes.
  const py::object requires_grad = py::getattr(object, "requires_grad", py::none());
  if (!PyBool_Check(requires_grad.ptr()) || !py::hasattr(object, "is_neg")) return false;
  return call(name, object, "is_neg").ptr() == Py_True;
}

}  // namespace

py::object without_gradient(const Name& name, py::handle object) {
  const py::object wants_gradient = py::getattr(object, "requires_grad", py::none());
  if (wants_gradient.ptr() != Py_True) return py::reinterpret_borrow<py::object>(object);
  return call(name, object, "detach");
}

bool is_numpy(const Name& name, py::handle object) {
  if (!py::isinstance<py::array>(object)) return false;
  const bool exact = py::detail::npy_api::get().PyArray_Type_ == Py_TYPE(object.ptr());
  if (!exact && is_instance(object, "numpy.ma", "MaskedArray")) {
    throw_type_error(expected(name, "an array without a mask", type_name(object)));
  }
  return true;
}

InputArray::InputArray(const Name& name, py::handle object, ElementKind kind, Place* place)
    : name_(name), kind_(kind) {
  if (object.is_none()) {
    given_ = false;
  } else if (is_numpy(name, object)) {
    const auto array = py::reinterpret_borrow<py::array>(object);
    view_.set(name, array, kind);
    read_only_ = !array.writeable();
    owner_ = array;
  } else if (kind == ElementKind::integer && is_sequence(object)) {
    const py::array array = integers(name, object);
    view_.set(name, array, kind);
    owner_ = array;
  } else {
    set(object, place);
  }
  if (place != nullptr) place->settle();
}

void InputArray::set(py::handle object, Place* place) {
  py::object source = without_gradient(name_, object);
  const bool negated = is_negated(name_, source);
  if (place != nullptr && !py::hasattr(source, "__dlpack__") && has_cuda_interface(source)) {
    owner_ = view_cuda_interface(name_, source, *place, view_, read_only_);
  } else {
    const DLDevice device = producer_device(name_, source);
    if (place == nullptr) {
      check_on_cpu(name_, device);
    } else {
      place->admit(name_, source, device);
    }
    if (negated) source = call(name_, source, "resolve_neg");
    set_dlpack(source, device, place);
  }
  read_only_ = read_only_ || negated;  // what is written to a copy would be lost
  if (is_host(view_.tensor.device)) return;
  place_ = place;
  source_ = source;
}

void InputArray::set_dlpack(py::handle object, DLDevice device, const Place* place) {
  auto lent = std::make_unique<ManagedTensor>(
      is_host(device) ? import_dlpack(name_, object)
                      : import_dlpack_on_cuda(name_, object, dlpack_stream(place->stream())));
  const DLDevice found = lent->tensor().device;
  if (!same_place(found, device)) {
    throw_type_error(unreadable(
        name_, object,
        " on " + device_name(found) + " whose __dlpack_device__ says " + device_name(device)));
  }
  view_.set(name_, lent->tensor());
  read_only_ = lent->read_only();
  owner_ = py::capsule(lent.get(), [](void* p) { delete static_cast<ManagedTensor*>(p); });
  lent.release();
}

void InputArray::make_readable() {
  if (!given_) return;
  // core reads lengths and resets one by one, wherever they lie.
  const bool readable = kind_ == ElementKind::floating ? view_.is_dense() : view_.is_regular();
  if (readable) return;
  if (place_ == nullptr) {
    copy();
  } else {
    copy_on_device();
  }
}

// By the array's own library, on its current stream, with which DLPack's protocol then orders ours.
void InputArray::copy_on_device() {
  const py::object copy = cuda_kind_of(source_).attr("contiguous")(source_);
  if (!copy.is_none()) set(copy, place_);  // else core says what is wrong with it
}

void InputArray::copy() {
  const py::array source = as_numpy();
  py::array copy =
      empty_array(source.dtype(), std::span(view_.shape, static_cast<size_t>(view_.tensor.ndim)));
  if (py::detail::npy_api::get().PyArray_CopyInto_(copy.ptr(), source.ptr()) != 0) {
    throw py::error_already_set();
  }
  view_.set_dense(copy.mutable_data());
  owner_ = std::move(copy);
}

py::array InputArray::as_numpy() const {
  const DLTensor& t = view_.tensor;
  py::array array(
      numpy_dtype(name_, t.dtype), py::array::ShapeContainer(view_.shape, view_.shape + t.ndim),
      py::array::StridesContainer(view_.byte_strides, view_.byte_strides + t.ndim), t.data, owner_);
  if (read_only_) array.attr("setflags")(py::arg("write") = false);
  return array;
}

}  // namespace fusedrnn::bindings
