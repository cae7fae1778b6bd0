// Barriers inside a block. What a thread wrote before a barrier, the others may read after it.
#pragma once

#include "cuda/device/inline.h"

namespace fusedrnn::cuda::device {

// Every thread of the block, from the same place of the source; none may have ended.
FUSEDRNN_DEVICE void sync_threads() { __syncthreads(); }

// Every thread of the warp.
FUSEDRNN_DEVICE void sync_warp() { __syncwarp(); }

// Barrier `id` (1 to 15; 0 is sync_threads) of `count` threads, whole warps. Those that only arrive
// do not wait: a producer arrives where consumers sync, and together they are `count`.
FUSEDRNN_DEVICE void sync_named(int id, int count) {
  asm volatile("barrier.sync %0, %1;" ::"r"(id), "r"(count) : "memory");
}
FUSEDRNN_DEVICE void arrive_named(int id, int count) {
  asm volatile("barrier.arrive %0, %1;" ::"r"(id), "r"(count) : "memory");
}

}  // namespace fusedrnn::cuda::device
