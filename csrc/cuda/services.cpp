#include "cuda/services.h"

#include "core/cuda_plugin.h"
#include "cuda/device/check.h"
#include "cuda/runtime/graph_memory.h"
#include "cuda/runtime/place.h"

namespace fusedrnn::cuda {
namespace {

class Event {
 public:
  Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event_); }  // what waits for it goes on waiting
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

// The legacy default stream has two names.
bool same_stream(cudaStream_t a, cudaStream_t b) {
  const auto plain = [](cudaStream_t stream) {
    return stream == cudaStreamLegacy ? nullptr : stream;
  };
  return plain(a) == plain(b);
}

}  // namespace

void* allocate_result(int32_t device, size_t bytes, cudaStream_t stream) {
  const Place place(CudaPlace{device, stream, nullptr});
  return allocate_from_pool(place, bytes == 0 ? 1 : bytes, stream);
}

void release_result(int32_t device, void* memory, cudaStream_t stream) noexcept {
  try {
    const CurrentDevice current(device);
    cudaFreeAsync(memory, stream);
  } catch (...) {  // the device is lost, and its memory with it
  }
}

void order_streams(int32_t device, cudaStream_t earlier, cudaStream_t later) {
  if (same_stream(earlier, later)) return;
  const CurrentDevice current(device);
  const Event reached;
  check(cudaEventRecord(reached.get(), earlier), "cudaEventRecord");
  check(cudaStreamWaitEvent(later, reached.get(), 0), "cudaStreamWaitEvent");
}

void read(const void* memory, size_t bytes, void* to, const Place& place) {
  check(cudaMemcpyAsync(to, memory, bytes, cudaMemcpyDeviceToHost, place.stream()),
        "cudaMemcpyAsync");
  check(cudaStreamSynchronize(place.stream()), "cudaStreamSynchronize");
}

int32_t device_of_address(const void* memory) {
  cudaPointerAttributes attributes{};
  check(cudaPointerGetAttributes(&attributes, memory), "cudaPointerGetAttributes");
  const bool on_device =
      attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
  return on_device ? attributes.device : -1;
}

}  // namespace fusedrnn::cuda
