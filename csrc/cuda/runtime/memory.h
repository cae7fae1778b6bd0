// Device memory of calls and tapes: from the caller's allocator, or else from the library's pool.
// Nothing here waits for the device.
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
  void* data_ = nullptr;
};

// What a tape keeps. Calls on any stream may use it, between enter() and leave(); it is released
// after the work of all of them. A graph of the caller's that holds a backward call alone does not
// hold its tape: as x and the weights, that must stay for as long as the graph is launched.
class KeptMemory {
 public:
  KeptMemory(const Place& place, size_t bytes);
  ~KeptMemory();
  KeptMemory(const KeptMemory&) = delete;
  KeptMemory& operator=(const KeptMemory&) = delete;

  char* data() const { return static_cast<char*>(data_); }

  // Before a call's work: what comes on its stream sees what the forward call wrote.
  void enter(const Place& place);
  // After it.
  void leave(const Place& place);

 private:
  struct Use {
    cudaStream_t stream;
    cudaEvent_t done;
  };

  void release() noexcept;
  void wait_for_uses(cudaStream_t stream) noexcept;
  bool used_on_its_stream_alone() const;

  const int device_;
  const cudaStream_t stream_;  // of the forward call
  const size_t bytes_;
  const bool has_allocator_;
  fusedrnn_allocator allocator_{};
  GraphMemory* shared_ = nullptr;  // where the caller captured a graph
  void* data_ = nullptr;
  std::mutex mutex_;
  std::vector<Use> uses_;  // the first is the forward call's
};

}  // namespace fusedrnn::cuda
