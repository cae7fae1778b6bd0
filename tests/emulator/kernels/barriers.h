// Barriers that are right, and barriers that not all reach.
// One unit of a program includes it.
#pragma once

#include "cuda/device/shared.h"
#include "cuda/device/shuffle.h"
#include "cuda/device/sync.h"
#include "cuda/device/thread.h"

namespace fusedrnn::cuda::kernels {

// Warp 0 produces, warp 1 consumes, over two named barriers; out: [rounds].
__global__ void producer_and_consumer(float* out, int rounds) {
  constexpr int kFull = 1, kEmpty = 2, kBoth = 64;
  device::SharedMemory memory;
  const device::Shared<float> slot = memory.take<float>(32);
  for (int round = 0; round < rounds; ++round) {
    if (device::warp() == 0) {
      if (round > 0) device::sync_named(kEmpty, kBoth);
      slot[device::lane()] = static_cast<float>(round);
      device::arrive_named(kFull, kBoth);
    } else {
      device::sync_named(kFull, kBoth);
      if (device::lane() == 31) out[round] = slot[0] + slot[31];
      if (round + 1 < rounds) device::arrive_named(kEmpty, kBoth);
    }
  }
}

__global__ void other_branches() {
  if (device::thread() < 64) {
    device::sync_threads();
  } else {
    device::sync_threads();
  }
}

__global__ void ends_before_the_barrier() {
  if (device::thread() == 70) return;
  device::sync_threads();
}

__global__ void ends_behind_others() {
  if (device::warp() == 0) device::sync_threads();
}

__global__ void lanes_missing_in_a_shuffle(float* out) {
  if (device::lane() < 16) out[device::lane()] = device::shuffle_xor(1.0f, 1);
}

__global__ void lanes_missing_in_sync_warp() {
  if (device::lane() != 7) device::sync_warp();
}

__global__ void shuffle_of_any_block(float* out) {
  out[device::thread()] = device::shuffle_down(1.0f, 1);
}

__global__ void waits_for_each_other() {
  if (device::thread() < 32) {
    device::sync_named(1, 64);
  } else {
    device::sync_named(2, 64);
  }
}

__global__ void counts_that_differ() { device::sync_named(1, device::warp() == 0 ? 64 : 96); }

__global__ void half_a_warp_at_a_barrier() { device::sync_named(1, 48); }

__global__ void barrier_of_no_number() { device::sync_named(16, 64); }

// The second warp's numbers are read before a barrier says that they are there.
__global__ void forgotten_barrier(float* out) {
  device::SharedMemory memory;
  const device::Shared<float> values = memory.take<float>(device::threads());
  values[device::thread()] = 1;
  out[device::thread()] = values[device::threads() - 1 - device::thread()];
}

}  // namespace fusedrnn::cuda::kernels
