// Where a call runs: the device, made current while the call lasts, and the caller's stream.
#pragma once

#include <cuda_runtime.h>

#include "core/cuda_plugin.h"
#include "cuda/runtime/capture_mode.h"
#include "cuda/runtime/device.h"

namespace fusedrnn::cuda {

// Makes a device current and the caller's one again at the end.
class CurrentDevice {
 public:
  explicit CurrentDevice(int ordinal);
  ~CurrentDevice();
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int previous_ = -1;  // negative: nothing to restore
};

class Place {
 public:
  // Throws where the device cannot be used.
  explicit Place(const CudaPlace& place);

  Device& device() const { return device_; }
  cudaStream_t stream() const { return stream_; }
  const fusedrnn_allocator* allocator() const { return allocator_; }
  // The graph that the caller is capturing the stream into; null where it is not.
  cudaGraph_t captured_graph() const { return graph_; }
  bool capturing() const { return graph_ != nullptr; }

 private:
  CurrentDevice current_;
  // cuBLASLt and kernels that are loaded at their first launch may allocate, graphs are made and
  // destroyed, while this thread or another captures.
  RelaxedCapture relaxed_;
  Device& device_;
  cudaStream_t stream_;
  const fusedrnn_allocator* allocator_;
  cudaGraph_t graph_ = nullptr;
};

}  // namespace fusedrnn::cuda
