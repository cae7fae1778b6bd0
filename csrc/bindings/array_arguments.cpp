#include "bindings/array_arguments.h"

#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/dlpack_exchange.h"
#include "bindings/numpy_types.h"
#include "core/error.h"
#include "core/memory.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {
namespace {

bool is_instance(py::handle object, const char* module, const char* type) {
  return py::isinstance(object, py::module_::import(module).attr(type));
}

// Throws for masked arrays, whose mask nobody would look at.
bool is_numpy(const Name& name, py::handle object) {
  if (!py::isinstance<py::array>(object)) return false;
  const bool exact = py::detail::npy_api::get().PyArray_Type_ == Py_TYPE(object.ptr());
  if (!exact && is_instance(object, "numpy.ma", "MaskedArray")) {
    refuse_type(name, "an array without a mask", type_name(object));
  }
  return true;
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
  py::array result = empty_array(py::dtype::of<int64_t>(), {static_cast<int64_t>(items.size())});
  auto* values = static_cast<int64_t*>(result.mutable_data());
  for (size_t i = 0; i < items.size(); ++i) {
    const py::handle item = items[i];
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

// As DLPack's protocol writes it: the legacy default stream, which CUDA knows as 0 as well, is 1.
int64_t dlpack_stream(const Place& place) {
  const auto stream = static_cast<int64_t>(reinterpret_cast<intptr_t>(place.stream()));
  return stream == 0 ? 1 : stream;
}

}  // namespace

py::object without_gradient(const Name& name, py::handle object) {
  const py::object wants_gradient = py::getattr(object, "requires_grad", py::none());
  if (wants_gradient.ptr() != Py_True) return py::reinterpret_borrow<py::object>(object);
  return call(name, object, "detach");
}

py::array empty_array(const py::dtype& dtype, const Shape& shape) {
  const auto bytes = static_cast<size_t>(shape.count() * dtype.itemsize());
  std::unique_ptr<Block> block;
  try {
    block = std::make_unique<Block>(bytes);
  } catch (const std::bad_alloc&) {
    throw Error(FUSEDRNN_OUT_OF_MEMORY,
                "out of memory: cannot allocate " + std::to_string(bytes) + " bytes for an array");
  }
  const void* memory = block->data();
  const py::capsule owner(block.get(), [](void* p) { delete static_cast<Block*>(p); });
  block.release();
  return py::array(dtype, py::array::ShapeContainer(shape.begin(), shape.end()), memory, owner);
}

bool is_dense(const py::array& array) {
  constexpr int kNeeded = int{py::detail::npy_api::NPY_ARRAY_ALIGNED_} | int{py::array::c_style};
  return (array.flags() & kNeeded) == kNeeded;
}

// --- views ---

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
    strides[i] = array.strides()[i] / item;
    if (shape[i] > 1 && array.strides()[i] % item != 0) whole_strides = false;
  }
  tensor.shape = shape;
  tensor.strides = strides;
  read_only = !array.writeable();
  owner = array;
}

void ArrayView::set(const Name& name, LentTensor lent) {
  const DLTensor& other = lent.tensor;
  check_tensor(name, other, nullptr, nullptr);
  tensor = other;
  tensor.data = other.data == nullptr ? nullptr : data_of(other);
  tensor.byte_offset = 0;
  whole_strides = true;
  for (int i = 0; i < tensor.ndim; ++i) {
    shape[i] = other.shape[i];
    strides[i] = stride_of(other, i);
  }
  tensor.shape = shape;
  tensor.strides = strides;
  read_only = lent.read_only;
  owner = std::move(lent.owner);
}

void ArrayView::insert_axis(int axis) {
  for (int i = tensor.ndim++; i > axis; --i) {
    shape[i] = shape[i - 1];
    strides[i] = strides[i - 1];
  }
  shape[axis] = strides[axis] = 1;
}

void ArrayView::remove_axis(int axis) {
  --tensor.ndim;
  for (int i = axis; i < tensor.ndim; ++i) {
    shape[i] = shape[i + 1];
    strides[i] = strides[i + 1];
  }
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
  if (read_by_table(name, object)) return py::reinterpret_borrow<py::object>(object);
  py::object source = without_gradient(name, object);
  const bool negated = is_negated(name, source);
  if (place == nullptr || py::hasattr(source, "__dlpack__") ||
      !read_cuda_interface(name, source, *place)) {
    const DLDevice device = producer_device(name, source);
    if (place == nullptr) {
      check_on_cpu(name, device);
    } else {
      place->admit(name, source, device);
    }
    if (negated) source = call(name, source, "resolve_neg");
    const int64_t stream = is_host(device) ? kNoOrder : dlpack_stream(*place);
    set(name, import_dlpack(name, source, device, stream));
  }
  read_only = read_only || negated;  // what is written to a copy would be lost
  return source;
}

bool ArrayView::read_by_table(const Name& name, py::handle object) {
  const ExchangeTable* const table = exchange_table(Py_TYPE(object.ptr()));
  DLTensor seen;
  DLManagedTensorVersioned* managed = nullptr;
  if (table == nullptr || !look_at(*table, object.ptr(), seen, &managed)) return false;
  py::capsule memory(managed, [](void* p) {
    auto* ended = static_cast<DLManagedTensorVersioned*>(p);
    if (ended->deleter != nullptr) ended->deleter(ended);
  });
  set(name, {seen, (managed->flags & DLPACK_FLAG_BITMASK_READ_ONLY) != 0, std::move(memory)});
  return true;
}

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
  if (reinterpret_cast<uintptr_t>(t.data) % static_cast<uintptr_t>(item_size(t)) != 0) return false;
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
  if (py::detail::npy_api::get().PyArray_CopyInto_(copy.ptr(), source.ptr()) != 0) {
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
                         const Place* place)
    : array_(py::reinterpret_borrow<py::object>(object)) {
  const bool given = !object.is_none();
  if (place != nullptr && place->on_cuda()) {
    const DLDevice device{kDLCUDA, place->device()};
    if (given) check_device(name, producer_device(name, array_), device, "x");
    if (!given) array_ = place->empty(dtype, shape);
    // New arrays were made on the place's own stream, and so were those that the layers give.
    view_.set(name, import_dlpack(name, array_, device));
    return;
  }
  if (!given) array_ = empty_array(numpy_dtype(dtype), shape);
  view_.read(name, array_, ElementKind::floating, nullptr);
  if (view_.read_only) {
    refuse_value(name, "an array to write to", "a read-only one");
  }
  if (!view_.whole_strides) {
    refuse_value(name, "strides that are multiples of the element's size", "others");
  }
}

}  // namespace fusedrnn::bindings
