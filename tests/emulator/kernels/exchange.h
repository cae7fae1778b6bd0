// Blocks that exchange through global memory, with the order that it takes and without.
// One unit of a program includes it.
#pragma once

#include <cstdint>

#include "cuda/device/grid.h"
#include "cuda/device/memory.h"
#include "cuda/device/shared.h"
#include "cuda/device/thread.h"

namespace fusedrnn::cuda::kernels {

enum class Order { right, no_release, no_acquire };

// Block 0 writes 32 numbers and raises a flag; block 1 waits for it and reads them.
template <Order kOrder>
__global__ void message(float* data, uint32_t* flag, float* out) {
  const int t = device::thread();
  if (device::block_x() == 0) {
    device::store_weak(data + t, static_cast<float>(t + 1));
    device::sync_threads();
    if (t == 0) {
      if (kOrder == Order::no_release) {
        device::store_relaxed(flag, 1u);
      } else {
        device::store_release(flag, 1u);
      }
    }
    return;
  }
  const float early = device::load_weak(data + t);  // now in this block's cache
  device::wait_until(flag, [](uint32_t value) { return value == 1; });
  if (kOrder != Order::no_acquire) device::fence();
  out[t] = device::load_weak(data + t) + 0 * early;
}

// The number and its turn in one word: relaxed accesses are enough. words: [blocks, blocks], since
// a block may be as many turns ahead of its neighbour to the right.
__global__ void tagged_ring(uint64_t* words, float* out, int turns) {
  const int blocks = device::blocks_x(), own = device::block_x();
  const int next = (own + 1) % blocks;
  if (device::thread() != 0) return;
  uint32_t value = static_cast<uint32_t>(own);
  for (int turn = 1; turn <= turns; ++turn) {
    const auto tag = static_cast<uint32_t>(turn);
    uint64_t* const slots = words + turn % blocks * blocks;
    device::store_relaxed(slots + next, uint64_t{tag} << 32 | value);
    const uint64_t word = device::wait_until(
        slots + own, [tag](uint64_t w) { return static_cast<uint32_t>(w >> 32) == tag; });
    value = static_cast<uint32_t>(word);
  }
  out[own] = static_cast<float>(value);
}

// Each round, every block adds its neighbour's number of the last round to its own.
__global__ void neighbours(float* numbers, uint32_t* counter, int rounds) {
  const int blocks = device::blocks_x(), own = device::block_x();
  device::GridBarrier grid(counter, blocks);
  for (int round = 0; round < rounds; ++round) {
    const float* const from = numbers + round % 2 * blocks;
    float* const to = numbers + (round + 1) % 2 * blocks;
    if (device::thread() == 0) {
      const float sum =
          device::load_weak(from + own) + device::load_weak(from + (own + 1) % blocks);
      device::store_weak(to + own, sum);
    }
    grid.sync();
  }
}

// As a barrier of the grid, without its fences.
__global__ void neighbours_without_fences(float* numbers, uint32_t* counter, float* out) {
  const int blocks = device::blocks_x(), own = device::block_x();
  const auto all = static_cast<uint32_t>(blocks);
  if (device::thread() != 0) return;
  device::store_weak(numbers + own, 1.0f);
  device::atomic_add(counter, 1u);
  device::wait_until(counter, [all](uint32_t arrived) { return arrived == all; });
  out[own] = device::load_weak(numbers + (own + 1) % blocks);
}

__global__ void waits_for_a_flag(const uint32_t* flag) {
  device::wait_until(flag, [](uint32_t value) { return value == 1; });
}

// The wait of a kernel that knows nothing of device/.
__global__ void waits_plainly(const volatile uint32_t* flag) {
  while (*flag != 1) {
  }
}

__global__ void raises_weakly(uint32_t* flag) {
  if (device::block_x() == 0) {
    device::store_weak(flag, 1u);
    device::wait_until(flag + 1, [](uint32_t value) { return value == 1; });
  } else {
    device::wait_until(flag, [](uint32_t value) { return value == 1; });
    device::store_relaxed(flag + 1, 1u);
  }
}

__global__ void counts(uint32_t* counter, uint32_t* seen) {
  const uint32_t old = device::atomic_add(counter, 1u);
  device::store_relaxed(seen + old, 1u);
}

// 16 bytes in one access, and streaming ones.
__global__ void wide(device::Bits128* words) {
  device::Bits128 word = device::load_acquire(words);
  device::store_release(words + 1, device::Bits128{word.high, word.low});
  device::store_streaming(words + 2, device::load_streaming(words));
}

__global__ void misaligned(float* p) {
  device::store_relaxed(reinterpret_cast<uint64_t*>(p + 1), uint64_t{1});
}

}  // namespace fusedrnn::cuda::kernels
