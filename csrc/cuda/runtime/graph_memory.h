// Memory of the library's pool, for a call that its caller captures into a graph without giving an
// allocator. The graph may be launched for as long as it exists, so it holds a share of the memory
// beside the call or what it leaves. The last to drop its share leaves the memory to the device's
// next call, because a graph ends where nothing of CUDA may be called.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstddef>

#include "cuda/runtime/place.h"

namespace fusedrnn::cuda {

class GraphMemory {
 public:
  // With a share for the graph that is being captured and one for the caller, who drops it.
  static GraphMemory* make(const Place& place, size_t bytes);

  void* data() const { return data_; }
  void drop();
  // The graph drops its share when it, and all that was instantiated from it, are gone.
  void share_with(cudaGraph_t graph);

 private:
  GraphMemory(Device& device, void* data) : device_(device), data_(data) {}

  Device& device_;
  void* const data_;
  std::atomic<int> shares_{1};
};

// From the library's pool on the device, for use on `stream`.
void* allocate_from_pool(const Place& place, size_t bytes, cudaStream_t stream);
[[noreturn]] void throw_out_of_memory(const Place& place, size_t bytes);

}  // namespace fusedrnn::cuda
