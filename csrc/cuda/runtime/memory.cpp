#include "cuda/runtime/memory.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "cuda/device/check.h"
#include "cuda/runtime/capture_mode.h"
#include "cuda/runtime/graph_memory.h"

namespace fusedrnn::cuda {
namespace {

// Where nothing is needed a byte is asked for: allocators may refuse to give none.
size_t at_least_one(size_t bytes) { return bytes == 0 ? 1 : bytes; }

// `shared` is set where the caller captures a graph without giving an allocator.
void* allocate(const Place& place, size_t bytes, GraphMemory*& shared) {
  if (place.allocator() != nullptr) {
    const fusedrnn_allocator& allocator = *place.allocator();
    void* const memory = allocator.allocate(allocator.context, bytes, place.stream());
    if (memory == nullptr) throw_out_of_memory(place, bytes);
    return memory;
  }
  if (!place.capturing()) return allocate_from_pool(place, bytes, place.stream());
  shared = GraphMemory::make(place, bytes);
  return shared->data();
}

// Whether work on the two comes in one order. The per-thread default stream is another in each
// thread.
bool same_stream(cudaStream_t a, cudaStream_t b) { return a == b && a != cudaStreamPerThread; }

// Whether it is the legacy default stream, which is there for ever, and no capture forbids its use.
bool is_open_default_stream(cudaStream_t stream) {
  if (stream != nullptr && stream != cudaStreamLegacy) return false;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const bool open = cudaStreamIsCapturing(stream, &status) == cudaSuccess;
  cudaGetLastError();
  return open;
}

}  // namespace

// --- of a call ---

CallMemory::CallMemory(const Place& place, size_t bytes)
    : place_(place), bytes_(at_least_one(bytes)), data_(allocate(place, bytes_, shared_)) {}

CallMemory::~CallMemory() {
  if (place_.allocator() != nullptr) {
    place_.allocator()->release(place_.allocator()->context, data_, bytes_, place_.stream());
  } else if (shared_ != nullptr) {
    shared_->drop();
  } else {
    cudaFreeAsync(data_, place_.stream());
  }
}

// --- of several calls ---

KeptMemory::KeptMemory(const Place& place, size_t bytes)
    : device_(place.device().ordinal()),
      stream_(place.stream()),
      bytes_(at_least_one(bytes)),
      has_allocator_(place.allocator() != nullptr),
      data_(allocate(place, bytes_, shared_)) {
  if (has_allocator_) allocator_ = *place.allocator();
}

KeptMemory::~KeptMemory() { release(); }

void KeptMemory::enter(const Place& place) {
  if (place.capturing()) {
    // Events of outside may not be waited for. What is captured runs after the capture, and the
    // caller orders it as it orders x and the weights.
    if (shared_ != nullptr) shared_->share_with(place.captured_graph());
    return;
  }
  const std::lock_guard lock(mutex_);
  check(wait_for_uses(place.stream()), "cudaStreamWaitEvent");
}

void KeptMemory::leave(const Place& place) {
  if (place.capturing()) return;
  const std::lock_guard lock(mutex_);
  Use* use = nullptr;
  for (Use& known : uses_) {
    if (same_stream(known.stream, place.stream())) use = &known;
  }
  if (use == nullptr) {
    cudaEvent_t done = nullptr;
    check(cudaEventCreateWithFlags(&done, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    uses_.push_back({place.stream(), done});
    use = &uses_.back();
  }
  check(cudaEventRecord(use->done, place.stream()), "cudaEventRecord");
}

cudaError_t KeptMemory::wait_for_uses(cudaStream_t stream) const {
  cudaError_t status = cudaSuccess;
  for (const Use& use : uses_) {
    if (same_stream(use.stream, stream)) continue;
    const cudaError_t waited = cudaStreamWaitEvent(stream, use.done, 0);
    if (waited != cudaSuccess) status = waited;
  }
  return status;
}

bool KeptMemory::used_on_its_stream_alone() const {
  return std::all_of(uses_.begin(), uses_.end(),
                     [&](const Use& use) { return same_stream(use.stream, stream_); });
}

void KeptMemory::release() noexcept {
  try {
    const CurrentDevice current(device_);
    const RelaxedCapture relaxed;
    if (shared_ != nullptr) {
      // Whoever drops the last share, the memory is released on this stream.
      wait_for_uses(device_at(device_).release_stream());
      shared_->drop();
    } else if (has_allocator_) {
      wait_for_uses(stream_);
      allocator_.release(allocator_.context, data_, bytes_, stream_);
    } else if (uses_.empty()) {
      cudaFreeAsync(data_, stream_);  // the call that made it failed, and its stream is still there
    } else if (used_on_its_stream_alone() && is_open_default_stream(stream_)) {
      // The pool gives a stream at once what that stream releases, and what another does only when
      // the device has come to it: by then a host that is ahead would have asked for more.
      cudaFreeAsync(data_, stream_);
    } else {
      // The caller's streams may be gone; their events are not.
      const cudaStream_t stream = device_at(device_).release_stream();
      wait_for_uses(stream);
      cudaFreeAsync(data_, stream);
    }
    for (const Use& use : uses_) cudaEventDestroy(use.done);
  } catch (...) {
    // The runtime has ended, and the memory with it.
  }
}

}  // namespace fusedrnn::cuda
