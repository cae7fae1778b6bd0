// Device memory of one call and of several: from the caller's allocator, or else from the library's
// pool. Nothing here waits for the device.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <mutex>
#include <utility>
#include <vector>

#include "cuda/runtime/place.h"

namespace fusedrnn::cuda {

class GraphMemory;

// What one call needs while it runs; released in the order of its stream.
class CallMemory {
 public:
  CallMemory(const Place& place, size_t bytes);
  ~CallMemory();
  CallMemory(const CallMemory&) = delete;
  CallMemory& operator=(const CallMemory&) = delete;

  char* data() const { return static_cast<char*>(data_); }

 private:
  const Place& place_;
  const size_t bytes_;
  GraphMemory* shared_ = nullptr;  // where the caller captures a graph
  void* const data_;
};

// What outlives a call, as a reserve. Calls on any stream may use it, between enter() and leave();
// it is released after the work of all of them. A graph of the caller's that was not being captured
// when it was made does not hold it: as x and the weights, it must then stay for as long as the
// graph is launched.
class KeptMemory {
 public:
  KeptMemory(const Place& place, size_t bytes);
  ~KeptMemory();
  KeptMemory(const KeptMemory&) = delete;
  KeptMemory& operator=(const KeptMemory&) = delete;

  char* data() const { return static_cast<char*>(data_); }

  // Before a call's work: what comes on its stream sees what the calls before wrote.
  void enter(const Place& place);
  // After it.
  void leave(const Place& place);

 private:
  struct Use {
    cudaStream_t stream;
    cudaEvent_t done;
  };

  void release() noexcept;
  cudaError_t wait_for_uses(cudaStream_t stream) const;
  bool used_on_its_stream_alone() const;

  const int device_;
  const cudaStream_t stream_;  // of the call that made it
  const size_t bytes_;
  const bool has_allocator_;
  fusedrnn_allocator allocator_{};
  GraphMemory* shared_ = nullptr;  // where the caller captured a graph
  void* const data_;
  std::mutex mutex_;
  std::vector<Use> uses_;  // the last of each stream
};

}  // namespace fusedrnn::cuda
