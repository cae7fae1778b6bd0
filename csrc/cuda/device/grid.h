// A barrier of all blocks of a cooperative launch, over a counter in global memory.
#pragma once

#include <cstdint>

#include "cuda/device/memory.h"
#include "cuda/device/sync.h"
#include "cuda/device/thread.h"

namespace fusedrnn::cuda::device {

// Every thread makes one, over the same counter, which was 0 before the launch.
class GridBarrier {
 public:
  FUSEDRNN_DEVICE GridBarrier(uint32_t* counter, int blocks)
      : counter_(counter), blocks_(static_cast<uint32_t>(blocks)) {}

  // Every thread of every block. What it wrote before, all read after it.
  FUSEDRNN_DEVICE void sync() {
    all_arrived_ += blocks_;
    sync_threads();  // the block's writes are before thread 0's release
    if (thread() == 0) {
      fence();
      atomic_add(counter_, 1u);
      const uint32_t target = all_arrived_;
      wait_until(counter_, [target](uint32_t arrived) {
        return static_cast<int32_t>(arrived - target) >= 0;  // the counter may wrap around
      });
      fence();
    }
    sync_threads();
  }

 private:
  uint32_t* counter_;
  uint32_t blocks_;
  uint32_t all_arrived_ = 0;
};

}  // namespace fusedrnn::cuda::device
