// Loops over one primitive each, whose results say that it did what it is for.
#pragma once

#include <cstdint>

#include "cuda/device/cluster.h"
#include "cuda/device/grid.h"
#include "cuda/device/memory.h"
#include "cuda/device/mma.h"
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

// What a persistent kernel in a cluster does between two steps: every thread sends 8 bytes to each
// block, and waits for all that is sent to its own. Two buffers in turns: who sends the words of a
// step has received those of the step before from every thread, each sent behind its last read.
// right: a count of the threads that got what they should.
template <int kBlocks>
__global__ void __launch_bounds__(kThreads) cluster_exchange(uint32_t* right, int rounds) {
  constexpr int kWords = kBlocks * kThreads;
  device::SharedMemory memory;
  const device::Shared<device::MBarrier> arrived = memory.take<device::MBarrier>(2);
  const device::Shared<uint64_t> words = memory.take<uint64_t>(2 * kWords);
  const int own = device::cluster_rank() * kThreads + device::thread();
  if (device::thread() == 0) {
    for (int i = 0; i < 2; ++i) device::mbarrier_init(&arrived[i], 1);
    device::mbarrier_init_done();
  }
  device::cluster_sync();
  uint64_t value = 0;
  for (int i = 0; i < rounds; ++i) {
    const int buffer = i % 2;
    if (device::thread() == 0) {
      device::mbarrier_arrive_expect(&arrived[buffer], kWords * static_cast<int>(sizeof value));
    }
    for (int rank = 0; rank < kBlocks; ++rank) {
      device::store_async(&device::map_shared(words, rank)[buffer * kWords + own], value + 1,
                          &device::map_shared(arrived, rank)[buffer]);
    }
    device::mbarrier_wait(&arrived[buffer], i / 2 % 2);
    value = words[buffer * kWords + (own + (i + 1) * kThreads) % kWords];
  }
  device::atomic_add(right, value == static_cast<uint64_t>(rounds) ? 1u : 0u);
  device::cluster_sync();
}

// The same over the grid, through slots that are written once: 0xFF until their step, then polled.
// A block sends kSlots of 16 bytes a step and reads those of all blocks. slots: [rounds, blocks,
// kSlots]; right: as above.
constexpr int kSlots = 16;

__global__ void __launch_bounds__(kThreads)
    grid_exchange(device::Bits128* slots, uint32_t* right, int rounds) {
  const int sent = device::blocks_x() * kSlots;
  uint64_t value = 0;
  for (int i = 0; i < rounds; ++i) {
    device::Bits128* const step = slots + static_cast<int64_t>(i) * sent;
    if (device::thread() < kSlots) {
      device::store_relaxed(step + device::block_x() * kSlots + device::thread(),
                            device::Bits128{value + 1, value + 1});
    }
    uint64_t sum = 0;
    for (int slot = device::thread(); slot < sent; slot += kThreads) {
      sum |= device::wait_until(step + slot, [](const device::Bits128& bits) {
               return bits.low != ~uint64_t{0};
             }).low;
    }
    value = sum == 0 ? value + 1 : sum;  // a thread may have no slot to read
    device::sync_threads();
  }
  device::atomic_add(right, value == static_cast<uint64_t>(rounds) ? 1u : 0u);
}

// `rounds` products of ones, 16 x 16 by 16 x 8, in each of kChains sums of every warp. sum: 16 a
// round.
template <int kChains>
__global__ void __launch_bounds__(kThreads) mma_chains(uint32_t* sum, int rounds) {
  constexpr uint32_t kOnes = 0x3f803f80;  // two of bfloat16
  const uint32_t a[4] = {kOnes, kOnes, kOnes, kOnes}, b[2] = {kOnes, kOnes};
  float d[kChains][4] = {};
  for (int i = 0; i < rounds; ++i) {
#pragma unroll
    for (int chain = 0; chain < kChains; ++chain) device::mma_bf16(d[chain], a, b);
  }
  float least = d[0][0];
#pragma unroll
  for (int chain = 0; chain < kChains; ++chain) {
    for (const float each : d[chain]) least = each < least ? each : least;
  }
  if (device::thread() == 0 && device::block_x() == 0) *sum = static_cast<uint32_t>(least);
}

__global__ void __launch_bounds__(kThreads) nothing() {}

}  // namespace fusedrnn::cuda::probes
