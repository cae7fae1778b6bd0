#include "cuda/runtime/device.h"

#include <cstdint>
#include <cstdio>
#include <limits>
#include <map>
#include <utility>

#include "core/error.h"
#include "cuda/device/check.h"
#include "cuda/runtime/capture_mode.h"

namespace fusedrnn::cuda {
namespace {

constexpr int kOldestCapability = 80;

cudaStream_t new_stream() {
  const RelaxedCapture relaxed;
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  return stream;
}

cudaMemPool_t new_pool(int ordinal) {
  const RelaxedCapture relaxed;
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.handleTypes = cudaMemHandleTypeNone;
  properties.location = {cudaMemLocationTypeDevice, ordinal};
  cudaMemPool_t pool = nullptr;
  check(cudaMemPoolCreate(&pool, &properties), "cudaMemPoolCreate");
  uint64_t everything = std::numeric_limits<uint64_t>::max();
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &everything),
        "cudaMemPoolSetAttribute");
  return pool;
}

int attribute(cudaDeviceAttr which, int ordinal) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, ordinal), "cudaDeviceGetAttribute");
  return value;
}

template <size_t n>
void copy_text(const std::string& text, char (&to)[n]) {
  std::snprintf(to, n, "%s", text.c_str());
}

// Why the device cannot be used; "" where it can.
std::string unusable(int ordinal, int capability) {
  const std::string is = std::to_string(capability / 10) + "." + std::to_string(capability % 10);
  if (capability < kOldestCapability) {
    return "too old: compute capability " + is + ", at least 8.0 is needed";
  }
  if (attribute(cudaDevAttrMemoryPoolsSupported, ordinal) == 0) {
    return "no memory pools: cudaMallocAsync is not supported";
  }
  return "";
}

int capability_of(int ordinal) {
  return 10 * attribute(cudaDevAttrComputeCapabilityMajor, ordinal) +
         attribute(cudaDevAttrComputeCapabilityMinor, ordinal);
}

}  // namespace

Device::Device(int ordinal)
    : ordinal_(ordinal),
      pool_(new_pool(ordinal)),
      graphs_(new_stream()),
      release_stream_(new_stream()) {}

void Device::abandon(void* memory) {
  const std::lock_guard lock(mutex_);
  abandoned_.push_back(memory);
}

void Device::release_abandoned() {
  std::vector<void*> memory;
  {
    const std::lock_guard lock(mutex_);
    memory.swap(abandoned_);
  }
  if (memory.empty()) return;
  const RelaxedCapture relaxed;
  for (void* block : memory) check(cudaFreeAsync(block, release_stream_), "cudaFreeAsync");
}

Device& device_at(int ordinal) {
  static std::mutex mutex;
  static auto* const devices = new std::map<int, Device*>();
  const std::lock_guard lock(mutex);
  Device*& device = (*devices)[ordinal];
  if (device == nullptr) {
    const std::string why = unusable(ordinal, capability_of(ordinal));
    if (!why.empty()) {
      throw Error(FUSEDRNN_UNAVAILABLE, "cuda:" + std::to_string(ordinal) + ": " + why);
    }
    device = new Device(ordinal);
  }
  return *device;
}

int count_devices(std::string& why) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    cudaGetLastError();
    why = cudaGetErrorString(status);
    return 0;
  }
  if (count == 0) why = "no CUDA device";
  return count;
}

CudaDevice describe_device(int ordinal) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, ordinal), "cudaGetDeviceProperties");
  CudaDevice description{};
  copy_text(properties.name, description.name);
  description.capability = 10 * properties.major + properties.minor;
  description.memory = static_cast<int64_t>(properties.totalGlobalMem);
  copy_text(unusable(ordinal, description.capability), description.unusable);
  return description;
}

}  // namespace fusedrnn::cuda
