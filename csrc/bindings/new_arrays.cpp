#include "bindings/new_arrays.h"

#include <memory>
#include <new>
#include <string>
#include <utility>

#include "bindings/array_view.h"
#include "bindings/numpy_types.h"
#include "core/error.h"
#include "core/memory.h"

namespace fusedrnn::bindings {
namespace {

// NumPy's own allocator is faster below; above, memory that was used before is.
constexpr int64_t kSmallBytes = 4096;

// An array that a consumer holds until it calls the deleter, with its memory.
struct BlockLease {
  explicit BlockLease(size_t bytes) : block(bytes) {}

  DLManagedTensorVersioned managed{};
  TensorView view;
  Block block;
};

py::object new_array(const ExchangeTable& table, DLDataType dtype, const Shape& shape, void** data,
                     bool swapped) {
  auto lease = std::make_unique<BlockLease>(static_cast<size_t>(shape.count() * dtype.bits / 8));
  *data = lease->block.data();
  TensorView& view = lease->view;
  view.view(*data, dtype, shape);
  if (swapped) {
    view.strides[0] = view.strides[1];
    view.strides[1] *= view.shape[0];
  }
  lease->managed = {.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION},
                    .manager_ctx = lease.get(),
                    .deleter =
                        [](DLManagedTensorVersioned* ended) {
                          delete static_cast<BlockLease*>(ended->manager_ctx);
                        },
                    .flags = 0,
                    .dl_tensor = view.tensor};
  void* array = nullptr;
  // Its own to release from here on, whatever comes of it.
  if (table.take(&lease.release()->managed, &array) != 0) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(static_cast<PyObject*>(array));
}

// By NumPy's own allocator: small arrays come faster than we could wrap memory of ours.
py::object new_numpy_array(PyObject* descr, const Shape& shape, void** data) {
  static_assert(sizeof(Py_intptr_t) == sizeof(int64_t));
  Py_INCREF(descr);  // the call takes it
  auto array = py::reinterpret_steal<py::object>(numpy().PyArray_NewFromDescr_(
      numpy().PyArray_Type_, descr, shape.rank(),
      reinterpret_cast<const Py_intptr_t*>(shape.begin()), nullptr, nullptr, 0, nullptr));
  if (!array) throw py::error_already_set();
  *data = py::detail::array_proxy(array.ptr())->data;
  return array;
}

}  // namespace

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

py::tuple tuple_taking(py::object* objects, int count) {
  py::tuple tuple(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) PyTuple_SET_ITEM(tuple.ptr(), i, objects[i].release().ptr());
  return tuple;
}

ResultsLike::ResultsLike(PyObject* array) {
  if (is_exactly_numpy(array)) {
    descr_ = py::reinterpret_borrow<py::object>(py::detail::array_proxy(array)->descr);
  } else {
    table_ = exchange_table(Py_TYPE(array));
  }
}

bool ResultsLike::are_bits() const {
  if (!descr_) return false;
  const auto* proxy = py::detail::array_descriptor_proxy(descr_.ptr());
  return proxy->kind == 'V' && !is_registered(proxy->type_num);
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
