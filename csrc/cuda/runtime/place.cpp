#include "cuda/runtime/place.h"

#include "cuda/device/check.h"

namespace fusedrnn::cuda {

CurrentDevice::CurrentDevice(int ordinal) {
  int before = 0;
  check(cudaGetDevice(&before), "cudaGetDevice");
  if (before == ordinal) return;
  check(cudaSetDevice(ordinal), "cudaSetDevice");
  previous_ = before;
}

CurrentDevice::~CurrentDevice() {
  if (previous_ >= 0) cudaSetDevice(previous_);
}

Place::Place(const CudaPlace& place)
    : current_(place.device),
      device_(device_at(place.device)),
      stream_(static_cast<cudaStream_t>(place.stream)),
      allocator_(place.allocator) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamGetCaptureInfo(stream_, &status, nullptr, &graph_, nullptr, nullptr, nullptr),
        "cudaStreamGetCaptureInfo");
  if (status != cudaStreamCaptureStatusActive) graph_ = nullptr;
  if (status == cudaStreamCaptureStatusInvalidated) {
    throw Error(FUSEDRNN_INVALID_VALUE, "stream: its capture has been invalidated");
  }
}

}  // namespace fusedrnn::cuda
