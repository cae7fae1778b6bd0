// The library's one door: core/cuda_plugin.h.
#include <cuda_runtime.h>

#include <cstdio>
#include <memory>
#include <string>

#include "core/cuda_plugin.h"
#include "core/guarded.h"
#include "cuda/gemm/gemm.h"
#include "cuda/path.h"
#include "cuda/runtime/device.h"
#include "cuda/runtime/place.h"
#include "cuda/services.h"

namespace fusedrnn::cuda {
namespace {

int32_t device_count(char* why, size_t size) {
  std::string reason;
  int count = 0;
  if (guarded([&] { count = count_devices(reason); }) != FUSEDRNN_OK) reason = last_error();
  if (size > 0) std::snprintf(why, size, "%s", reason.c_str());
  return count;
}

fusedrnn_status describe(int32_t device, CudaDevice* description) {
  return guarded([&] { *description = describe_device(device); });
}

fusedrnn_status forward(const ForwardCall* call, const CudaMasks* masks, const CudaPlace* place,
                        CudaTape** tape) {
  return guarded([&] {
    const Place here(*place);
    here.device().release_abandoned();
    std::unique_ptr<CudaTape> kept;
    const Path& path = path_of(call->problem, here);
    path.forward(*call, *masks, here, tape == nullptr ? nullptr : &kept);
    if (tape != nullptr) *tape = kept.release();
  });
}

fusedrnn_status backward(const CudaTape* tape, const BackwardCall* call, const CudaPlace* place) {
  return guarded([&] {
    const Place here(*place);
    here.device().release_abandoned();
    tape->backward(*call, here);
  });
}

void free_tape(CudaTape* tape) { delete tape; }

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

const char* description() {
  thread_local std::string text;
  const fusedrnn_status status = guarded([] {
    int runtime = 0, driver = 0;
    if (cudaRuntimeGetVersion(&runtime) != cudaSuccess) runtime = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
    cudaGetLastError();
    text = "CUDA runtime " + version_text(runtime) + ", driver " +
           (driver == 0 ? "none" : version_text(driver)) + ", " + gemm_description();
  });
  return status == FUSEDRNN_OK ? text.c_str() : last_error();
}

fusedrnn_status allocate(int32_t device, size_t bytes, void* stream, void** memory) {
  return guarded(
      [&] { *memory = allocate_result(device, bytes, static_cast<cudaStream_t>(stream)); });
}

void release(int32_t device, void* memory, void* stream) {
  release_result(device, memory, static_cast<cudaStream_t>(stream));
}

fusedrnn_status order(int32_t device, void* earlier, void* later) {
  return guarded([&] {
    order_streams(device, static_cast<cudaStream_t>(earlier), static_cast<cudaStream_t>(later));
  });
}

fusedrnn_status device_of(const void* memory, int32_t* device) {
  return guarded([&] { *device = device_of_address(memory); });
}

constexpr CudaPlugin kPlugin = {kCudaPluginVersion, device_count, describe,   forward,
                                backward,           free_tape,    last_error, description,
                                allocate,           release,      order,      device_of};

}  // namespace
}  // namespace fusedrnn::cuda

extern "C" __attribute__((visibility("default"))) const fusedrnn::CudaPlugin*
fusedrnn_cuda_plugin() {
  return &fusedrnn::cuda::kPlugin;
}
