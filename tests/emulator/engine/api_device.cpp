// The runtime's calls about devices and kernels.
#include <cstdio>

#include "engine/capture.h"
#include "engine/launch.h"
#include "engine/runtime.h"
#include "engine/stream.h"

using namespace fusedrnn::emulator;  // NOLINT: this file defines functions outside of it

namespace {

constexpr int kVersion = CUDART_VERSION;

void check_device(const Runtime& r, int device) {
  require(r.devices > 0, cudaErrorNoDevice, "");
  require(device >= 0 && device < r.devices, cudaErrorInvalidDevice, "");
}

int value_of(const Runtime& r, cudaDeviceAttr attribute) {
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      return kThreadsOfBlock;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return 48 * 1024;
    case cudaDevAttrWarpSize:
      return kWarpThreads;
    case cudaDevAttrMultiProcessorCount:
      return kMultiprocessors;
    case cudaDevAttrL2CacheSize:
      return 50 << 20;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return kThreadsOfMultiprocessor;
    case cudaDevAttrComputeCapabilityMajor:
      return r.capability / 10;
    case cudaDevAttrComputeCapabilityMinor:
      return r.capability % 10;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return kSharedOfMultiprocessor;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return kSharedOfBlock;
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrMemoryPoolsSupported:
    case cudaDevAttrClusterLaunch:
      return 1;
  }
  throw Fault{cudaErrorInvalidValue, "an attribute that the emulator does not know"};
}

}  // namespace

cudaError_t cudaRuntimeGetVersion(int* version) {
  return call([&](Runtime&) { *version = kVersion; });
}

// Where there is none, libraries that would need one are not looked for.
cudaError_t cudaDriverGetVersion(int* version) {
  return call([&](Runtime& r) { *version = r.driver; });
}

cudaError_t cudaGetDeviceCount(int* count) {
  return call([&](Runtime& r) {
    *count = r.devices;
    require(r.devices > 0, cudaErrorNoDevice, "");
  });
}

cudaError_t cudaGetDevice(int* device) {
  return call([&](Runtime& r) {
    check_device(r, current_device());
    *device = current_device();
  });
}

cudaError_t cudaSetDevice(int device) {
  return call([&](Runtime& r) {
    check_device(r, device);
    set_current_device(device);
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return call([&](Runtime& r) {
    check_device(r, device);
    *properties = {};
    std::snprintf(properties->name, sizeof properties->name, "fusedrnn emulator");
    properties->totalGlobalMem = r.memory.total_bytes();
    properties->sharedMemPerBlock = 48 * 1024;
    properties->sharedMemPerBlockOptin = kSharedOfBlock;
    properties->sharedMemPerMultiprocessor = kSharedOfMultiprocessor;
    properties->regsPerBlock = 65536;
    properties->warpSize = kWarpThreads;
    properties->maxThreadsPerBlock = kThreadsOfBlock;
    properties->maxThreadsPerMultiProcessor = kThreadsOfMultiprocessor;
    properties->major = r.capability / 10;
    properties->minor = r.capability % 10;
    properties->multiProcessorCount = kMultiprocessors;
    properties->l2CacheSize = 50 << 20;
    properties->cooperativeLaunch = 1;
    properties->memoryPoolsSupported = 1;
    properties->pciBusID = device;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return call([&](Runtime& r) {
    check_device(r, device);
    *value = value_of(r, attribute);
  });
}

cudaError_t cudaDeviceSynchronize() {
  return call([&](Runtime& r) {
    check_device(r, current_device());
    refuse_any_capture("cudaDeviceSynchronize");
    synchronize_device(current_device());
  });
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return call([&](Runtime& r) {
    *total = r.memory.total_bytes();
    *free = *total - r.memory.live_bytes();
  });
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  return call([&](Runtime&) {
    require(kernel != nullptr, cudaErrorInvalidValue, "no kernel");
    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
      require(value >= 0 && static_cast<size_t>(value) <= kSharedOfBlock, cudaErrorInvalidValue,
              "more shared memory than a block can have");
    }
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel,
                                                          int block_size, size_t shared_bytes) {
  return call([&](Runtime&) {
    require(kernel != nullptr && block_size > 0, cudaErrorInvalidValue, "no kernel, or no thread");
    *blocks = block_size > kThreadsOfBlock || shared_bytes > kSharedOfBlock
                  ? 0
                  : resident_blocks(block_size, shared_bytes);
  });
}
