// Loops over one primitive each, whose results say that it did what it is for.
#pragma once

#include <cstdint>

#include "cuda/device/cluster.h"
#include "cuda/device/grid.h"
#include "cuda/device/memory.h"
#include "cuda/device/sync.h"
#include "cuda/device/thread.h"

namespace fusedrnn::cuda::probes {

constexpr int kThreads = 128;

// `rounds` barriers of the grid. counter: 0 before; it ends as rounds * blocks.
__global__ void __launch_bounds__(kThreads) grid_barriers(uint32_t* counter, int rounds) {
  device::GridBarrier grid(counter, device::blocks_x());
  for (int i = 0; i < rounds; ++i) grid.sync();
}

// `rounds` barriers of a cluster. done: a count of the threads that came through.
template <bool kRelaxed>
__global__ void __launch_bounds__(kThreads) cluster_barriers(uint32_t* done, int rounds) {
  for (int i = 0; i < rounds; ++i) {
    if (kRelaxed) {
      device::cluster_arrive_relaxed();
      device::cluster_wait();
    } else {
      device::cluster_sync();
    }
  }
  device::atomic_add(done, 1u);
}

// One thread follows `steps` links through the shared memory of the next block of its cluster,
// each of which says where the next one is. end: where it comes to.
__global__ void __launch_bounds__(kThreads) remote_loads(uint32_t* end, int steps) {
  constexpr int kLinks = 64;
  device::SharedMemory memory;
  const device::Shared<int> links = memory.take<int>(kLinks);
  for (int i = device::thread(); i < kLinks; i += device::threads()) links[i] = (i + 17) % kLinks;
  device::cluster_sync();
  if (device::thread() == 0 && device::block_x() == 0) {
    const device::Shared<int> remote = device::map_shared(links, 1);
    int at = 0;
    for (int i = 0; i < steps; ++i) at = remote[at];
    *end = static_cast<uint32_t>(at);
  }
  device::cluster_sync();
}

// Two blocks of a cluster send a number to and fro through shared memory, counted at mbarriers;
// each adds one. end: rounds * 2.
__global__ void __launch_bounds__(kThreads) cluster_ping_pong(uint32_t* end, int rounds) {
  device::SharedMemory memory;
  const device::Shared<device::MBarrier> arrived = memory.take<device::MBarrier>(1);
  const device::Shared<uint32_t> number = memory.take<uint32_t>(1);
  const int rank = device::cluster_rank();
  if (device::thread() == 0) {
    device::mbarrier_init(&arrived[0], 1);
    device::mbarrier_init_done();
  }
  device::cluster_sync();
  if (device::thread() == 0) {
    uint32_t* const to = &device::map_shared(number, 1 - rank)[0];
    device::MBarrier* const there = &device::map_shared(arrived, 1 - rank)[0];
    uint32_t value = 0;
    for (int i = 0; i < rounds; ++i) {
      device::mbarrier_arrive_expect(&arrived[0], sizeof(uint32_t));
      if (rank == 0) device::store_async(to, value + 1, there);
      device::mbarrier_wait(&arrived[0], i % 2);
      value = number[0];
      if (rank == 1) device::store_async(to, value + 1, there);
    }
    if (rank == 0) *end = value;
  }
  device::cluster_sync();
}

// Block 0 and the last block do so through global memory, the turn beside the number in one word.
// words: [2], zeros.
__global__ void __launch_bounds__(kThreads)
    word_ping_pong(uint64_t* words, uint32_t* end, int rounds) {
  const bool first = device::block_x() == 0, last = device::block_x() == device::blocks_x() - 1;
  if (device::thread() != 0 || (!first && !last)) return;
  uint64_t* const own = words + (first ? 0 : 1);
  uint64_t* const other = words + (first ? 1 : 0);
  uint32_t value = 0;
  for (int i = 1; i <= rounds; ++i) {
    const uint64_t turn = static_cast<uint64_t>(i) << 32;
    if (first) device::store_relaxed(other, turn | (value + 1));
    value = static_cast<uint32_t>(
        device::wait_until(own, [i](uint64_t word) { return static_cast<int>(word >> 32) == i; }));
    if (!first) device::store_relaxed(other, turn | (value + 1));
  }
  if (first) *end = value;
}

__global__ void __launch_bounds__(kThreads) nothing() {}

}  // namespace fusedrnn::cuda::probes
