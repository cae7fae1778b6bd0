// Where a tensor lies: what DLPack calls a device, seen by those who must reach its memory.
#pragma once

#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

// Memory that the CPU reads and writes like any other.
inline bool is_host(DLDevice device) {
  const int32_t type = device.device_type;
  return type == kDLCPU || type == kDLCUDAHost || type == kDLROCMHost;
}

// Memory that kernels on a CUDA device reach; that of managed arrays too.
inline bool is_cuda(DLDevice device) {
  return device.device_type == kDLCUDA || device.device_type == kDLCUDAManaged;
}

inline bool same_place(DLDevice a, DLDevice b) {
  if (is_cuda(a) && is_cuda(b)) return a.device_id == b.device_id;
  return is_host(a) && is_host(b);
}

}  // namespace fusedrnn
