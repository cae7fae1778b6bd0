// The devices, and what the library keeps for each: made at the first use, never destroyed, since
// the CUDA runtime may end before any destructor of ours would run.
#pragma once

#include <cuda_runtime.h>

#include <mutex>
#include <string>
#include <vector>

#include "core/cuda_plugin.h"
#include "cuda/runtime/graphs.h"

namespace fusedrnn::cuda {

class Device {
 public:
  explicit Device(int ordinal);

  int ordinal() const { return ordinal_; }
  GraphCache& graphs() { return graphs_; }
  // The library's own, which keeps what was released for the next call: the device's default pool
  // gives it back to the system whenever the host waits, and belongs to the whole process.
  cudaMemPool_t pool() const { return pool_; }
  // A stream of the library's own, on which memory is released that calls on several streams used.
  cudaStream_t release_stream() const { return release_stream_; }

  // Memory of the pool that nothing uses any more, from a thread that may call nothing of
  // CUDA (the end of a graph); the next call releases it.
  void abandon(void* memory);
  void release_abandoned();

 private:
  const int ordinal_;
  const cudaMemPool_t pool_;
  GraphCache graphs_;
  cudaStream_t release_stream_ = nullptr;
  std::mutex mutex_;
  std::vector<void*> abandoned_;
};

// The device, which must be current. Throws where there is none or it cannot be used.
Device& device_at(int ordinal);

// How many there are; 0 and the reason in `why` where there is none.
int count_devices(std::string& why);

CudaDevice describe_device(int ordinal);

}  // namespace fusedrnn::cuda
