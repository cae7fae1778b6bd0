#include "bindings/array_export.h"

#include <memory>
#include <new>
#include <string>
#include <utility>

#include "bindings/arguments.h"
#include "bindings/array_import.h"
#include "bindings/numpy_types.h"
#include "core/error.h"
#include "core/memory.h"

namespace fusedrnn::bindings {
namespace {

[[noreturn]] void throw_read_only(const Name& name) {
  throw_value_error(expected(name, "an array to write to", "a read-only one"));
}

}  // namespace

py::capsule allocate(size_t bytes) {
  std::unique_ptr<Block> block;
  try {
    block = std::make_unique<Block>(bytes);
  } catch (const std::bad_alloc&) {
    throw Error(FUSEDRNN_OUT_OF_MEMORY,
                "out of memory: cannot allocate " + std::to_string(bytes) + " bytes for an array");
  }
  // The capsule's pointer is the memory, its context the block that owns it.
  py::capsule memory(block->data(), nullptr, [](PyObject* capsule) {
    delete static_cast<Block*>(PyCapsule_GetContext(capsule));
  });
  PyCapsule_SetContext(memory.ptr(), block.release());
  return memory;
}

py::array empty_array(const py::dtype& dtype, std::span<const int64_t> shape) {
  auto bytes = static_cast<size_t>(dtype.itemsize());
  for (const int64_t n : shape) bytes *= static_cast<size_t>(n);
  const py::capsule memory = allocate(bytes);
  return py::array(dtype, py::array::ShapeContainer(shape.begin(), shape.end()),
                   memory.get_pointer(), memory);
}

py::array empty_array(const py::dtype& dtype, std::initializer_list<int64_t> shape) {
  return empty_array(dtype, std::span(shape.begin(), shape.size()));
}

OutputArray::OutputArray(const Name& name, py::handle object, Dtype dtype, const Shape& shape,
                         const Place* place) {
  if (place != nullptr && place->on_cuda()) {
    if (object.is_none()) {
      array_ = place->empty(dtype, shape);
    } else {
      array_ = py::reinterpret_borrow<py::object>(object);
      check_device(name, producer_device(name, array_), {kDLCUDA, place->device()}, "x");
    }
    set_on_device(name);
    return;
  }
  if (object.is_none()) {
    const py::array array = empty_array(numpy_dtype(dtype), std::span(shape.begin(), shape.end()));
    array_ = array;
    view_.set(name, array, ElementKind::floating);
    return;
  }
  array_ = py::reinterpret_borrow<py::object>(object);
  if (is_numpy(name, object)) {
    const auto array = py::reinterpret_borrow<py::array>(object);
    if (!array.writeable()) throw_read_only(name);
    view_.set(name, array, ElementKind::floating);
  } else {
    given_.emplace(name, object, ElementKind::floating);
    if (given_->read_only()) throw_read_only(name);
    view_.set(name, *given_->tensor());
  }
  if (!view_.is_regular()) {
    throw_value_error(expected(name, "strides that are multiples of the element's size", "others"));
  }
}

// New arrays were made on the place's own stream, and so were those that the layers give.
void OutputArray::set_on_device(const Name& name) {
  constexpr int64_t kNoOrder = -1;
  lent_.emplace(import_dlpack_on_cuda(name, array_, kNoOrder));
  view_.set(name, lent_->tensor());
}

}  // namespace fusedrnn::bindings
