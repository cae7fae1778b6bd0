#include "bindings/place.h"

#include <pybind11/gil_safe_call_once.h>

#include <utility>

#include "bindings/arguments.h"
#include "bindings/gil.h"
#include "core/cuda_library.h"
#include "core/error.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {

void Place::admit(const Name& name, py::handle object, DLDevice device) {
  if (is_host(device)) return;
  if (settled_) return check_device(name, device, device_, "x");
  check_usable_device(name, device);
  require_cuda_device(name, device);
  kind_ = cuda_kind_of(object);
  device_ = device;
  read_stream();
}

void Place::read_stream() {
  const py::object stream = kind_.attr("current_stream")(device());
  stream_ = static_cast<intptr_t>(int_argument("stream", stream));
}

Place Place::now() const {
  Place place = *this;
  place.forget_inputs();
  if (on_cuda()) place.read_stream();
  return place;
}

py::object Place::empty(Dtype dtype, const Shape& shape) const {
  const py::tuple extents = tuple_of(shape, as_it_is);
  return kind_.attr("empty")(extents, dtype_name(dtype), device());
}

void* stream_argument(py::handle object) {
  if (object.is_none()) return nullptr;
  return reinterpret_cast<void*>(static_cast<intptr_t>(int_argument("stream", object)));
}

py::object cuda_kind_of(py::handle array) {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> storage;
  const auto find = [] {
    return py::object(py::module_::import("fusedrnn.cuda_arrays").attr("kind_of"));
  };
  return storage.call_once_and_store_result(find).get_stored()(array);
}

CudaMemory::CudaMemory(py::object allocate, int32_t device)
    : allocator_{this, &CudaMemory::allocate, &CudaMemory::release},
      allocate_(std::move(allocate)),
      device_(device) {}

void* CudaMemory::allocate(void* context, size_t bytes, void* stream) noexcept {
  const HeldGil gil;
  if (!gil) return nullptr;
  auto& self = *static_cast<CudaMemory*>(context);
  try {
    const py::object pair = self.allocate_(bytes, self.device_, reinterpret_cast<intptr_t>(stream));
    auto [address, owner] = py::cast<std::pair<uintptr_t, py::object>>(pair);
    auto* memory = reinterpret_cast<void*>(address);
    if (memory != nullptr) {
      const std::lock_guard lock(self.mutex_);
      std::swap(self.owners_[memory], owner);
    }
    return memory;
  } catch (const py::error_already_set& error) {
    self.failure_ = error.value();
  } catch (...) {  // a pair of something else, or no memory for the map
  }
  return nullptr;
}

void CudaMemory::release(void* context, void* memory, size_t, void*) noexcept {
  const HeldGil gil;
  if (!gil) return;
  auto& self = *static_cast<CudaMemory*>(context);
  // The owner's end may call anything of Python's, and comes after the lock's.
  std::unordered_map<void*, py::object>::node_type ended;
  const std::lock_guard lock(self.mutex_);
  ended = self.owners_.extract(memory);
}

void CudaMemory::throw_on_failure(fusedrnn_status status, const char* message) {
  const py::object reason = std::exchange(failure_, py::object());
  if (status != FUSEDRNN_OUT_OF_MEMORY || !reason) return;
  PyErr_SetString(PyExc_MemoryError, message);
  py::error_already_set error;
  PyException_SetCause(error.value().ptr(), reason.inc_ref().ptr());
  throw error;
}

std::shared_ptr<CudaMemory> memory_of(const Place& place) {
  if (!place.on_cuda()) return nullptr;
  py::object allocate = py::getattr(place.kind(), "allocate", py::none());
  if (allocate.is_none()) return nullptr;
  return std::make_shared<CudaMemory>(std::move(allocate), place.device());
}

void throw_on_failure(fusedrnn_status status, CudaMemory* memory) {
  if (memory != nullptr) memory->throw_on_failure(status, fusedrnn_last_error());
  if (status != FUSEDRNN_OK) throw Error(status, fusedrnn_last_error());
}

}  // namespace fusedrnn::bindings
