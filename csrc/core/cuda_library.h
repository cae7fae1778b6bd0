// The CUDA library, a file of its own that is opened where it is first needed and never closed, and
// the devices that it sees.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/cuda_plugin.h"
#include "core/error.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

// Throws Error(FUSEDRNN_UNAVAILABLE) where there is none. From any thread.
const CudaPlugin& cuda_plugin();

// Where to look, unless the environment's FUSEDRNN_CUDA_LIBRARY says otherwise; what has been
// opened stays. Without either it is looked for beside the library that this code is in.
void set_cuda_library(const std::string& path);

// Throws what the library reports.
void check_cuda(const CudaPlugin& plugin, fusedrnn_status status);

// Usable devices: "cuda:0: NVIDIA H200, compute capability 9.0, 139.8 GiB", ... `about`: the
// library, or why no device can be used. Never throws for lack of a library, a driver or a device.
std::vector<std::string> cuda_devices(std::string& about);

// CudaPlugin::plain_products; 0 where there is no library.
int64_t cuda_plain_products();

// Throws where the device that `name` lies on cannot be used: Error(FUSEDRNN_UNAVAILABLE).
void require_cuda_device(const Name& name, DLDevice device);

}  // namespace fusedrnn
