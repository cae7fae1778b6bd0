#include "cuda/runtime/graph_memory.h"

#include <string>

#include "core/error.h"
#include "cuda/device/check.h"
#include "cuda/runtime/capture_mode.h"

namespace fusedrnn::cuda {

void throw_out_of_memory(const Place& place, size_t bytes) {
  throw Error(FUSEDRNN_OUT_OF_MEMORY,
              "out of memory: " + std::to_string(bytes) +
                  " bytes on cuda:" + std::to_string(place.device().ordinal()));
}

void* allocate_from_pool(const Place& place, size_t bytes, cudaStream_t stream) {
  void* memory = nullptr;
  const cudaError_t status = cudaMallocFromPoolAsync(&memory, bytes, place.device().pool(), stream);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw_out_of_memory(place, bytes);
  }
  check(status, "cudaMallocFromPoolAsync");
  return memory;
}

// Outside of the capture, and, since the graph may be launched on any stream, ready at once: what
// is waited for is a stream of ours with releases alone.
GraphMemory* GraphMemory::make(const Place& place, size_t bytes) {
  const RelaxedCapture relaxed;
  const cudaStream_t stream = place.device().release_stream();
  auto* const memory = new GraphMemory(place.device(), allocate_from_pool(place, bytes, stream));
  try {
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    memory->share_with(place.captured_graph());
  } catch (...) {
    memory->drop();
    throw;
  }
  return memory;
}

void GraphMemory::drop() {
  if (--shares_ > 0) return;
  device_.abandon(data_);
  delete this;
}

void GraphMemory::share_with(cudaGraph_t graph) {
  const auto drop_share = [](void* self) { static_cast<GraphMemory*>(self)->drop(); };
  cudaUserObject_t share = nullptr;
  check(cudaUserObjectCreate(&share, this, drop_share, 1, cudaUserObjectNoDestructorSync),
        "cudaUserObjectCreate");
  ++shares_;
  const cudaError_t status = cudaGraphRetainUserObject(graph, share, 1, cudaGraphUserObjectMove);
  if (status != cudaSuccess) cudaUserObjectRelease(share, 1);
  check(status, "cudaGraphRetainUserObject");
}

}  // namespace fusedrnn::cuda
