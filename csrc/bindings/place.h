// Where a call runs: on the CPU, or on the CUDA device of x and the current stream of x's library,
// in memory from that library's allocator.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "core/problem.h"
#include "core/tensor.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

// Where the device and the library are those of x, and everything else on a device must be there.
// The library is known through its kind, an object of fusedrnn.cuda_arrays.
class Place {
 public:
  // Of an array that is about to be read, x before all others: x decides, the others must fit.
  // Host arrays pass: whether an argument may be one, core knows.
  void admit(const Name& name, py::handle object, DLDevice device);
  // x has been seen.
  void settle() { settled_ = true; }

  // The same device for a later call, on the stream that is current by then.
  Place now() const;

  // What the work of a call on a device reads: a list that whoever holds results in memory of the
  // CUDA library's pool keeps, because their library does not know of that work. Filled before and
  // after results are made.
  py::list inputs() {
    if (!inputs_) inputs_ = py::list();
    return py::reinterpret_borrow<py::list>(inputs_);
  }
  // The call is over.
  void forget_inputs() { inputs_ = py::object(); }

  bool on_cuda() const { return !kind_.is_none(); }

  // These are for CUDA devices alone.
  const py::object& kind() const { return kind_; }
  int32_t device() const { return device_.device_id; }
  void* stream() const { return reinterpret_cast<void*>(stream_); }
  // A new array of x's library, uninitialised.
  py::object empty(Dtype dtype, const Shape& shape) const;

 private:
  void read_stream();

  bool settled_ = false;
  DLDevice device_{kDLCPU, 0};
  intptr_t stream_ = 0;
  py::object kind_ = py::none();
  py::object inputs_;  // or null
};

// A stream as DLPack's protocol writes it; None is the default stream.
void* stream_argument(py::handle object);

// The kind of a CUDA array: what fusedrnn.cuda_arrays knows of its library.
py::object cuda_kind_of(py::handle array);

// fusedrnn_allocator over a kind's `allocate`. A call and the tape it leaves share one; it must
// outlive both. What the kind raises stays here, and is the reason of the MemoryError that follows.
// Dies with the GIL held.
class CudaMemory {
 public:
  CudaMemory(py::object allocate, int32_t device);
  CudaMemory(const CudaMemory&) = delete;
  CudaMemory& operator=(const CudaMemory&) = delete;

  const fusedrnn_allocator* allocator() const { return &allocator_; }

  // Of what a call reported, throws that there was no memory where a kind says why.
  void throw_on_failure(fusedrnn_status status, const char* message);

 private:
  static void* allocate(void* context, size_t bytes, void* stream) noexcept;
  static void release(void* context, void* memory, size_t bytes, void* stream) noexcept;

  fusedrnn_allocator allocator_;
  py::object allocate_;
  int32_t device_;
  std::mutex mutex_;                              // of the owners: there may be no GIL
  std::unordered_map<void*, py::object> owners_;  // by address
  py::object failure_;                            // an exception, or null
};

// Null on the CPU, and where the library of x has no allocator to offer.
std::shared_ptr<CudaMemory> memory_of(const Place& place);

// Throws what the C ABI reported on this thread of a call, which worked in `memory`.
void throw_on_failure(fusedrnn_status status, CudaMemory* memory = nullptr);

}  // namespace fusedrnn::bindings
