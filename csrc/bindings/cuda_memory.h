// The memory that a call on a CUDA device works in, from the allocator of x's own library.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <unordered_map>

#include "bindings/place.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

// fusedrnn_allocator over a kind's `allocate`. A call and the tape it leaves share one; it must
// outlive both. What the kind raises stays here, and is the reason of the MemoryError that follows.
class CudaMemory {
 public:
  CudaMemory(py::object allocate, int32_t device);
  ~CudaMemory() = default;  // with the GIL held
  CudaMemory(const CudaMemory&) = delete;
  CudaMemory& operator=(const CudaMemory&) = delete;

  const fusedrnn_allocator* allocator() const { return &allocator_; }

  // Throws what a call reported.
  void throw_on_failure(fusedrnn_status status, const char* message);

 private:
  static void* allocate(void* context, size_t bytes, void* stream) noexcept;
  static void release(void* context, void* memory, size_t bytes, void* stream) noexcept;
  void* allocate(size_t bytes, void* stream) noexcept;

  fusedrnn_allocator allocator_;
  py::object allocate_;
  int32_t device_;
  std::unordered_map<void*, py::object> owners_;  // by address
  py::object failure_;                            // an exception, or null
};

// Null on the CPU, and where the library of x has no allocator to offer.
std::shared_ptr<CudaMemory> memory_of(const Place& place);

// Throws what a call reported, which worked in `memory` (which may be null).
void throw_on_failure(fusedrnn_status status, CudaMemory* memory);

}  // namespace fusedrnn::bindings
