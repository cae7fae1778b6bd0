// Launches of kernels.
#pragma once

#include <cuda_runtime.h>

#include "engine/kernel_run.h"

namespace fusedrnn::emulator {

// What the emulated devices offer: a Hopper with few multiprocessors.
constexpr int kMultiprocessors = 8;
constexpr int kThreadsOfBlock = 1024;
constexpr int kThreadsOfMultiprocessor = 2048;
constexpr int kBlocksOfMultiprocessor = 32;
constexpr size_t kSharedOfBlock = 227 * 1024;
constexpr size_t kSharedOfMultiprocessor = 228 * 1024;
constexpr size_t kSharedReserved = 1024;  // of each block, by the system
constexpr int kLargestCluster = 16;

// How many blocks of this shape one multiprocessor holds.
int resident_blocks(int block, size_t shared_bytes);

cudaError_t launch(Kernel kernel, cudaStream_t stream);

}  // namespace fusedrnn::emulator
