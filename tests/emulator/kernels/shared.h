// Shared memory used wrongly.
// One unit of a program includes it.
#pragma once

#include "cuda/device/shared.h"
#include "cuda/device/thread.h"

namespace fusedrnn::cuda::kernels {

__global__ void reads_shared(float* out, int taken, int index, int offset) {
  device::SharedMemory memory;
  const device::Shared<float> values = memory.take<float>(taken).offset(offset);
  out[device::thread()] = values[index];
}

// Where arrays of 3 bytes, of doubles, and of bytes aligned to 128 come to lie.
__global__ void carves(int* out) {
  device::SharedMemory memory;
  const device::Shared<char> first = memory.take<char>(3);
  const device::Shared<double> second = memory.take<double>(2);
  const device::Shared<char> third = memory.take<char>(1, 128);
  out[0] = static_cast<int>(reinterpret_cast<char*>(second.data()) - first.data());
  out[1] = static_cast<int>(third.data() - first.data());
}

}  // namespace fusedrnn::cuda::kernels
