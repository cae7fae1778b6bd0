// The CUDA devices of this machine, as the CUDA library sees them.
#pragma once

#include <string>
#include <vector>

#include "core/error.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

struct CudaSummary {
  std::vector<std::string>
      devices;        // "cuda:0: NVIDIA H200, compute capability 9.0, 139.8 GiB", ...
  std::string about;  // the library, or why no device can be used
};
// Never throws for lack of a library, a driver or a device.
CudaSummary cuda_summary();

// Throws where the device that `name` lies on cannot be used: Error(FUSEDRNN_UNAVAILABLE).
void require_cuda_device(const Name& name, DLDevice device);

}  // namespace fusedrnn
