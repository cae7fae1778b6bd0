// The library's one door: core/cuda_plugin.h.
#include <cuda_runtime.h>

#include <cstdio>
#include <string>

#include "core/cuda_plugin.h"
#include "core/error.h"
#include "cuda/engine.h"
#include "cuda/gemm/gemm.h"
#include "cuda/general/general.h"
#include "cuda/kernels/dropout.h"
#include "cuda/runtime/device.h"
#include "cuda/runtime/fork.h"
#include "cuda/runtime/memory.h"
#include "cuda/runtime/place.h"
#include "cuda/services.h"

namespace fusedrnn {

struct CudaKept : cuda::KeptMemory {
  using KeptMemory::KeptMemory;
};

namespace cuda {
namespace {

// What every function that uses CUDA and can fail begins with.
template <class Body>
fusedrnn_status at_door(const Body& body) noexcept {
  return guarded([&] {
    require_own_process();
    body();
  });
}

int32_t device_count(char* why, size_t size) {
  std::string reason;
  int count = 0;
  if (at_door([&] { count = count_devices(reason); }) != FUSEDRNN_OK) reason = last_error();
  if (size > 0) std::snprintf(why, size, "%s", reason.c_str());
  return count;
}

// Runs `work` where the caller says, behind a fence for exceptions.
template <class Work>
fusedrnn_status at(const CudaPlace& place, const Work& work) {
  return at_door([&] {
    const Place here(place);
    here.device().release_abandoned();
    work(here);
  });
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

const char* description() {
  thread_local std::string text;
  const fusedrnn_status status = at_door([] {
    int runtime = 0, driver = 0;
    if (cudaRuntimeGetVersion(&runtime) != cudaSuccess) runtime = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
    cudaGetLastError();
    text = "CUDA runtime " + version_text(runtime) + ", driver " +
           (driver == 0 ? "none" : version_text(driver)) + ", " + gemm_description();
  });
  return status == FUSEDRNN_OK ? text.c_str() : last_error();
}

constexpr CudaPlugin kPlugin = {
    .version = kCudaPluginVersion,
    .device_count = device_count,
    .describe_device =
        [](int32_t device, CudaDevice* description) {
          return at_door([&] { *description = describe_device(device); });
        },
    .reserve_bytes =
        [](const Problem* problem, size_t* bytes) {
          return guarded([&] { *bytes = reserve_bytes(*problem); });
        },
    .forward =
        [](const ForwardCall* call, const CudaMasks* masks, const CudaPlace* place) {
          return at(*place, [&](const Place& here) { forward(*call, *masks, here); });
        },
    .backward =
        [](const BackwardCall* call, const CudaMasks* masks, const CudaPlace* place) {
          return at(*place, [&](const Place& here) { backward(*call, *masks, here); });
        },
    .gates =
        [](const GatesCall* call, bool masked, const CudaPlace* place) {
          return at(*place, [&](const Place& here) { general_gates(*call, masked, here); });
        },
    .drop =
        [](const DropCall* call, const CudaPlace* place) {
          return at(*place, [&](const Place& here) { drop_elements(*call, here.stream()); });
        },
    .last_error = last_error,
    .description = description,
    .keep =
        [](size_t bytes, const CudaPlace* place, CudaKept** kept, void** memory) {
          return at(*place, [&](const Place& here) {
            *kept = new CudaKept(here, bytes);
            *memory = (*kept)->data();
          });
        },
    .enter =
        [](CudaKept* kept, const CudaPlace* place) {
          return at(*place, [&](const Place& here) { kept->enter(here); });
        },
    .leave =
        [](CudaKept* kept, const CudaPlace* place) {
          return at(*place, [&](const Place& here) { kept->leave(here); });
        },
    // What is left where the device is lost cannot be released, and ends with the process.
    .free_kept =
        [](CudaKept* kept) {
          if (!lost_by_fork()) delete kept;
        },
    .allocate =
        [](int32_t device, size_t bytes, void* stream, void** memory) {
          return at_door(
              [&] { *memory = allocate_result(device, bytes, static_cast<cudaStream_t>(stream)); });
        },
    .release =
        [](int32_t device, void* memory, void* stream) {
          if (!lost_by_fork()) release_result(device, memory, static_cast<cudaStream_t>(stream));
        },
    .order =
        [](int32_t device, void* earlier, void* later) {
          return at_door([&] {
            order_streams(device, static_cast<cudaStream_t>(earlier),
                          static_cast<cudaStream_t>(later));
          });
        },
    .read =
        [](const void* memory, size_t bytes, void* to, const CudaPlace* place) {
          return at(*place, [&](const Place& here) { read(memory, bytes, to, here); });
        },
    .device_of =
        [](const void* memory, int32_t* device) {
          return at_door([&] { *device = device_of_address(memory); });
        },
    .plain_products = plain_products,
};

}  // namespace
}  // namespace cuda
}  // namespace fusedrnn

extern "C" __attribute__((visibility("default"))) const fusedrnn::CudaPlugin*
fusedrnn_cuda_plugin() {
  return &fusedrnn::cuda::kPlugin;
}
