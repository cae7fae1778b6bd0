// Where a call runs: on the CPU, or on the CUDA device of x and the current stream of x's library.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

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
  void admit(const Name& name, py::handle object, DLDevice device) {
    if (device.device_type != kDLCPU) admit_device(name, object, device);
    settled_ = true;
  }
  // x has been seen, and lies in host memory.
  void settle() { settled_ = true; }

  // The same device for a later call, on the stream that is current by then.
  Place now() const;

  bool on_cuda() const { return !kind_.is_none(); }

  // These are for CUDA devices alone.
  const py::object& kind() const { return kind_; }
  int32_t device() const { return device_.device_id; }
  void* stream() const { return reinterpret_cast<void*>(stream_); }
  // A new array of x's library, uninitialised.
  py::object empty(Dtype dtype, const Shape& shape) const;

 private:
  void admit_device(const Name& name, py::handle object, DLDevice device);

  bool settled_ = false;
  DLDevice device_{kDLCPU, 0};
  intptr_t stream_ = 0;
  py::object kind_ = py::none();
};

// A stream as DLPack's protocol writes it: the legacy default stream, which CUDA knows as 0 as
// well, is 1.
int64_t dlpack_stream(const void* stream);
// And back; None is the default stream.
void* stream_argument(py::handle object);

// The kind of a CUDA array: what fusedrnn.cuda_arrays knows of its library.
py::object cuda_kind_of(py::handle array);

}  // namespace fusedrnn::bindings
