#include "bindings/array_view.h"

#include <bit>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/numpy_types.h"
#include "core/error.h"

namespace fusedrnn::bindings {
namespace {

using NumPy = py::detail::npy_api;

// Throws for masked arrays, whose mask nobody would look at.
bool is_numpy(const Name& name, py::handle object) {
  if (!py::isinstance<py::array>(object)) return false;
  if (!is_exactly_numpy(object.ptr()) && is_instance(object, "numpy.ma", "MaskedArray")) {
    refuse_type(name, "an array without a mask", type_name(object));
  }
  return true;
}

// Whether it is a view that PyTorch negates as it is read, such as the imaginary part of a
// conjugate: it would be exported without its sign.
bool is_negated(const Name& name, py::handle object) {
  // A class has properties in the place of these attributes.
  const py::object requires_grad = py::getattr(object, "requires_grad", py::none());
  if (!PyBool_Check(requires_grad.ptr()) || !py::hasattr(object, "is_neg")) return false;
  return call(name, object, "is_neg").ptr() == Py_True;
}

// As DLPack's protocol writes it: the legacy default stream, which CUDA knows as 0 as well, is 1.
int64_t dlpack_stream(const Place& place) {
  const auto stream = static_cast<int64_t>(reinterpret_cast<intptr_t>(place.stream()));
  return stream == 0 ? 1 : stream;
}

}  // namespace

bool wants_gradient(py::handle array) {
  if (is_exactly_numpy(array.ptr())) return false;
  static PyObject* const name = PyUnicode_InternFromString("requires_grad");  // is never deleted
  return py::getattr(array, name, py::none()).ptr() == Py_True;
}

py::object without_gradient(const Name& name, py::handle object) {
  if (!wants_gradient(object)) return py::reinterpret_borrow<py::object>(object);
  return call(name, object, "detach");
}

bool is_dense(const py::array& array) {
  constexpr int kNeeded = int{NumPy::NPY_ARRAY_ALIGNED_} | int{py::array::c_style};
  return (array.flags() & kNeeded) == kNeeded;
}

// --- seen as they lie ---

bool ArrayView::see(PyObject* object, bool keeps) {
  if (managed_ != nullptr) give_back();
  if (owner) owner = py::object();
  if (is_exactly_numpy(object)) return see_numpy(object, keeps);
  const ExchangeTable* const table = exchange_table(Py_TYPE(object));
  if (table == nullptr) return false;
  DLTensor seen;
  const bool owns = keeps || table->look == nullptr;
  if (!look_at(*table, object, seen, owns ? &managed_ : nullptr)) return false;
  view(seen);
  read_only = managed_ != nullptr && (managed_->flags & DLPACK_FLAG_BITMASK_READ_ONLY) != 0;
  return true;
}

bool ArrayView::see_numpy(PyObject* object, bool keeps) {
  const auto* array = py::detail::array_proxy(object);
  DLDataType dtype;
  if (array->nd > kMaxRank - 2 || (array->flags & NumPy::NPY_ARRAY_ALIGNED_) == 0 ||
      !plain_dtype(array->descr, dtype)) {
    return false;
  }
  const auto item = static_cast<unsigned>(dtype.bits / 8);  // a power of 2
  tensor = {array->data, {kDLCPU, 0}, array->nd, dtype, shape, strides, 0};
  for (int i = 0; i < array->nd; ++i) {
    shape[i] = array->dimensions[i];
    strides[i] = array->strides[i] >> std::countr_zero(item);
    if (shape[i] > 1 && (array->strides[i] & (item - 1)) != 0) return false;
  }
  read_only = (array->flags & NumPy::NPY_ARRAY_WRITEABLE_) == 0;
  if (keeps) owner = py::reinterpret_borrow<py::object>(object);
  return true;
}

void ArrayView::give_back() {
  if (managed_->deleter != nullptr) managed_->deleter(managed_);
  managed_ = nullptr;
}

// --- read, or refused in words ---

void ArrayView::set(const Name& name, const py::array& array, ElementKind kind) {
  static_assert(sizeof(py::ssize_t) == sizeof(int64_t));
  const py::dtype dtype = array.dtype();
  tensor = {const_cast<void*>(array.data()),
            {kDLCPU, 0},
            static_cast<int32_t>(array.ndim()),
            dlpack_dtype(name, dtype, kind),
            shape,
            strides,
            0};
  if (tensor.ndim > kMaxRank) check_header(name, tensor);  // throws
  const int64_t item = dtype.itemsize();
  whole_strides = true;
  for (int i = 0; i < tensor.ndim; ++i) {
    shape[i] = array.shape()[i];
    strides[i] = array.strides()[i] / item;
    if (shape[i] > 1 && array.strides()[i] % item != 0) whole_strides = false;
  }
  read_only = !array.writeable();
  owner = array;
}

void ArrayView::set(const Name& name, LentTensor lent) {
  check_tensor(name, lent.tensor, nullptr, nullptr);
  view(lent.tensor);
  whole_strides = true;
  read_only = lent.read_only;
  owner = std::move(lent.owner);
}

py::object ArrayView::read(const Name& name, py::handle object, ElementKind kind, Place* place) {
  if (is_numpy(name, object)) {
    set(name, py::reinterpret_borrow<py::array>(object), kind);
    return owner;
  }
  if (PyCapsule_CheckExact(object.ptr()) != 0) {  // fusedrnn.torch asks PyTorch itself for one
    py::object capsule = py::reinterpret_borrow<py::object>(object);
    set(name, import_capsule(name, capsule));
    return capsule;
  }
  if (see(object.ptr(), true)) {
    check_tensor(name, tensor, nullptr, nullptr);
    owner = owner_of(std::exchange(managed_, nullptr));
    return py::reinterpret_borrow<py::object>(object);
  }
  py::object source = without_gradient(name, object);
  const bool negated = is_negated(name, source);
  py::object lender = source;
  if (place != nullptr && !py::hasattr(source, "__dlpack__") &&
      py::hasattr(source, "__cuda_array_interface__")) {
    const py::object lend = py::module_::import("fusedrnn._cuda_interface").attr("lend");
    lender = lend(name.text(), source, place->on_cuda() ? place->device() : -1);
  }
  const DLDevice device = producer_device(name, lender);
  if (place == nullptr) {
    check_on_cpu(name, device);
  } else {
    place->admit(name, source, device);
  }
  if (negated) lender = source = call(name, source, "resolve_neg");
  const int64_t stream = is_host(device) ? kNoOrder : dlpack_stream(*place);
  set(name, import_dlpack(name, lender, device, stream));
  read_only = read_only || negated;  // what is written to a copy would be lost
  if (!is_host(tensor.device)) place->inputs().append(owner);
  return source;
}

}  // namespace fusedrnn::bindings
