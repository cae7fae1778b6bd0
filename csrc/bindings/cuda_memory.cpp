#include "bindings/cuda_memory.h"

#include <utility>

#include "bindings/errors.h"
#include "bindings/held_gil.h"
#include "core/error.h"

namespace fusedrnn::bindings {

CudaMemory::CudaMemory(py::object allocate, int32_t device)
    : allocator_{this, &CudaMemory::allocate, &CudaMemory::release},
      allocate_(std::move(allocate)),
      device_(device) {}

void* CudaMemory::allocate(void* context, size_t bytes, void* stream) noexcept {
  const HeldGil gil;
  return static_cast<CudaMemory*>(context)->allocate(bytes, stream);
}

void* CudaMemory::allocate(size_t bytes, void* stream) noexcept {
  try {
    try {
      const py::object pair = allocate_(bytes, device_, reinterpret_cast<intptr_t>(stream));
      auto [address, owner] = py::cast<std::pair<uintptr_t, py::object>>(pair);
      auto* memory = reinterpret_cast<void*>(address);
      if (memory != nullptr) owners_.insert_or_assign(memory, std::move(owner));
      return memory;
    } catch (const py::error_already_set& error) {
      failure_ = error.value();
    }
  } catch (...) {  // a pair of something else, or no memory for the map
  }
  return nullptr;
}

void CudaMemory::release(void* context, void* memory, size_t, void*) noexcept {
  if (Py_IsInitialized() == 0) return;  // a tape that outlives Python: nothing is left to free
  const HeldGil gil;
  static_cast<CudaMemory*>(context)->owners_.erase(memory);
}

void CudaMemory::throw_on_failure(fusedrnn_status status, const char* message) {
  const py::object reason = std::exchange(failure_, py::object());
  if (status == FUSEDRNN_OUT_OF_MEMORY && reason) {
    PyErr_SetString(PyExc_MemoryError, message);
    py::error_already_set error;
    PyException_SetCause(error.value().ptr(), reason.inc_ref().ptr());
    throw error;
  }
  if (status != FUSEDRNN_OK) throw Error(status, message);
}

std::shared_ptr<CudaMemory> memory_of(const Place& place) {
  if (!place.on_cuda()) return nullptr;
  py::object allocate = py::getattr(place.kind(), "allocate", py::none());
  if (allocate.is_none()) return nullptr;
  return std::make_shared<CudaMemory>(std::move(allocate), place.device());
}

void throw_on_failure(fusedrnn_status status, CudaMemory* memory) {
  if (memory != nullptr) return memory->throw_on_failure(status, fusedrnn_last_error());
  throw_on_failure(status);
}

}  // namespace fusedrnn::bindings
