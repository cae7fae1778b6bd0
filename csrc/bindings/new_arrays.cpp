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

using NumPy = py::detail::npy_api;

// NumPy's own allocator is faster below; above, memory that was used before is.
constexpr int64_t kSmallBytes = 4096;

// An array that a consumer holds until it calls the deleter, with its memory.
struct BlockLease {
  explicit BlockLease(size_t bytes) : block(bytes) {}

  DLManagedTensorVersioned managed{};
  TensorView view;
  Block block;
};

// What has a block of so many bytes for an array.
template <class T>
std::unique_ptr<T> allocate(size_t bytes) {
  try {
    return std::make_unique<T>(bytes);
  } catch (const std::bad_alloc&) {
    throw Error(FUSEDRNN_OUT_OF_MEMORY,
                "out of memory: cannot allocate " + std::to_string(bytes) + " bytes for an array");
  }
}

py::object new_array(const ExchangeTable& table, DLDataType dtype, const Shape& shape, void** data,
                     bool swapped) {
  auto lease = allocate<BlockLease>(static_cast<size_t>(shape.count() * dtype.bits / 8));
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

// Dense, over `memory`, or where that is null in memory of NumPy's own.
py::object new_numpy_array(PyObject* descr, const Shape& shape, void* memory = nullptr) {
  static_assert(sizeof(Py_intptr_t) == sizeof(int64_t));
  Py_INCREF(descr);  // the call takes it
  auto array = py::reinterpret_steal<py::object>(numpy().PyArray_NewFromDescr_(
      numpy().PyArray_Type_, descr, shape.rank(),
      reinterpret_cast<const Py_intptr_t*>(shape.begin()), nullptr, memory,
      memory == nullptr ? 0 : int{NumPy::NPY_ARRAY_WRITEABLE_}, nullptr));
  if (!array) throw py::error_already_set();
  return array;
}

void* data_of(const py::object& array) { return py::detail::array_proxy(array.ptr())->data; }

}  // namespace

py::array empty_array(const py::dtype& dtype, const Shape& shape) {
  const auto bytes = static_cast<size_t>(shape.count() * dtype.itemsize());
  std::unique_ptr<Block> block = allocate<Block>(bytes);
  void* const memory = block->data();
  py::capsule owner(block.get(), [](void* p) { delete static_cast<Block*>(p); });
  block.release();
  const py::object array = new_numpy_array(dtype.ptr(), shape, memory);
  if (numpy().PyArray_SetBaseObject_(array.ptr(), owner.release().ptr()) != 0) {
    throw py::error_already_set();
  }
  return py::reinterpret_borrow<py::array>(array);
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
  // Small ones come faster by NumPy's own allocator than we could wrap memory of ours.
  const bool small = shape.count() * dtype.bits / 8 <= kSmallBytes;
  // The type itself: that of x may have metadata, which is none of its results'.
  const py::dtype descr =
      are_bits() ? py::reinterpret_borrow<py::dtype>(descr_)
                 : py::dtype(py::detail::array_descriptor_proxy(descr_.ptr())->type_num);
  py::object array = small ? new_numpy_array(descr.ptr(), shape) : empty_array(descr, shape);
  *data = data_of(array);
  return array;
}

}  // namespace fusedrnn::bindings
