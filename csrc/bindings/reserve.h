// The reserve of a tape: a NumPy array of bytes, or memory on a CUDA device that calls on any
// stream may use.
#pragma once

#include <pybind11/numpy.h>

#include <memory>

#include "bindings/cuda_memory.h"
#include "bindings/place.h"
#include "core/cuda_plugin.h"
#include "core/network.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

class Reserve {
 public:
  // New memory for a call of these sizes. `memory`: its allocator on a CUDA device, or null.
  Reserve(const Network& network, int64_t T, int64_t B, const Place& place,
          std::shared_ptr<CudaMemory> memory);
  // Bytes that a forward call has left before. On the CPU.
  explicit Reserve(py::array bytes);
  ~Reserve();
  Reserve(const Reserve&) = delete;
  Reserve& operator=(const Reserve&) = delete;

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  // None on a CUDA device.
  const py::object& array() const { return array_; }

  // Around each call that uses it, on the place's stream.
  void enter(const Place& place) const { order(&CudaPlugin::enter, place); }
  void leave(const Place& place) const { order(&CudaPlugin::leave, place); }

 private:
  CudaPlace here(const Place& place) const;
  void order(fusedrnn_status (*CudaPlugin::*step)(CudaKept*, const CudaPlace*),
             const Place& place) const;

  void* data_ = nullptr;
  size_t bytes_ = 0;
  py::object array_ = py::none();
  std::shared_ptr<CudaMemory> memory_;
  CudaKept* kept_ = nullptr;
};

}  // namespace fusedrnn::bindings
