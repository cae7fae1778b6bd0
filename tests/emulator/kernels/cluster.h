// Clusters, mbarriers and asynchronous copies.
// One unit of a program includes it.
#pragma once

#include "cuda/device/async_copy.h"
#include "cuda/device/cluster.h"
#include "cuda/device/sync.h"
#include "cuda/device/thread.h"

namespace fusedrnn::cuda::kernels {

// Every block reads what its right neighbour in the cluster has in shared memory; out: [blocks].
template <bool kSynchronised>
__global__ void reads_neighbour(float* out) {
  device::SharedMemory memory;
  const device::Shared<float> own = memory.take<float>(1);
  if (device::thread() == 0) own[0] = static_cast<float>(device::block_x());
  if (kSynchronised) device::cluster_sync();
  const int next = (device::cluster_rank() + 1) % device::cluster_size();
  if (device::thread() == 0) out[device::block_x()] = device::map_shared(own, next)[0];
  if (kSynchronised) device::cluster_sync();
}

// The cluster's blocks store their number in all others, counted at mbarriers, for some steps.
__global__ void exchanges(float* out, int steps) {
  device::SharedMemory memory;
  const int size = device::cluster_size(), rank = device::cluster_rank(), t = device::thread();
  const device::Shared<device::MBarrier> arrived = memory.take<device::MBarrier>(2);
  const device::Shared<float> numbers = memory.take<float>(2 * size);
  if (t == 0) {
    device::mbarrier_init(&arrived[0], 1);
    device::mbarrier_init(&arrived[1], 1);
    device::mbarrier_init_done();
  }
  device::cluster_sync();
  float value = static_cast<float>(rank + 1);
  for (int step = 0; step < steps; ++step) {
    const int slot = step % 2;
    if (t == 0) device::mbarrier_arrive_expect(&arrived[slot], 4 * size);
    if (t < size) {
      device::store_async(&device::map_shared(numbers, t)[slot * size + rank], value,
                          &device::map_shared(arrived, t)[slot]);
    }
    device::mbarrier_wait(&arrived[slot], step / 2 % 2);
    value = 0;
    for (int i = 0; i < size; ++i) value += numbers[slot * size + i];
    device::sync_threads();
  }
  device::cluster_sync();
  if (t == 0) out[device::block_x()] = value;
}

__global__ void waits_without_arriving() { device::cluster_wait(); }

__global__ void not_all_of_a_cluster() {
  if (device::cluster_rank() == 0) device::cluster_sync();
}

__global__ void no_such_rank(float* out) {
  device::SharedMemory memory;
  out[0] = device::map_shared(memory.take<float>(1), device::cluster_size())[0];
}

// Numbers go through shared memory by element-wise copies, the next tile under way; block 128.
template <bool kWaits>
__global__ void copies(const float* in, float* out, int tiles) {
  device::SharedMemory memory;
  const int n = device::threads(), t = device::thread();
  const device::Shared<float> buffer = memory.take<float>(2 * n);
  device::copy_async(&buffer[t], in + t);
  device::copy_async_commit();
  for (int tile = 0; tile < tiles; ++tile) {
    if (tile + 1 < tiles) {
      device::copy_async(&buffer[(tile + 1) % 2 * n + t], in + (tile + 1) * n + t);
    }
    device::copy_async_commit();
    if (kWaits) device::copy_async_wait<1>();
    device::sync_threads();
    out[tile * n + t] = 2 * buffer[tile % 2 * n + n - 1 - t];
    device::sync_threads();
  }
  device::copy_async_wait<0>();
}

// The same by bulk copies of one thread, of `count` numbers.
__global__ void copies_in_bulk(const float* in, float* out, int count, int expected) {
  device::SharedMemory memory;
  const device::Shared<device::MBarrier> full = memory.take<device::MBarrier>(1);
  const device::Shared<float> buffer = memory.take<float>(256, 128);
  if (device::thread() == 0) {
    device::mbarrier_init(&full[0], 1);
    device::mbarrier_init_done();
  }
  device::sync_threads();
  if (device::thread() == 0) {
    device::mbarrier_arrive_expect(&full[0], expected);
    device::copy_bulk(buffer, in, count, &full[0]);
  }
  device::mbarrier_wait(&full[0], 0);
  for (int i = device::thread(); i < count; i += device::threads()) out[i] = 2 * buffer[i];
}

// Block 0's numbers into block 1 of the cluster.
__global__ void bulk_to_neighbour(float* out) {
  device::SharedMemory memory;
  const device::Shared<device::MBarrier> full = memory.take<device::MBarrier>(1);
  const device::Shared<float> sent = memory.take<float>(32), received = memory.take<float>(32);
  const int t = device::thread();
  sent[t] = static_cast<float>(t);
  device::fence_for_bulk();
  if (t == 0) {
    device::mbarrier_init(&full[0], 1);
    device::mbarrier_init_done();
  }
  device::cluster_sync();
  if (t == 0 && device::cluster_rank() == 0) {
    device::copy_bulk_remote(device::map_shared(received, 1), sent, 32,
                             &device::map_shared(full, 1)[0]);
  }
  if (device::cluster_rank() == 1) {
    if (t == 0) device::mbarrier_arrive_expect(&full[0], 128);
    device::mbarrier_wait(&full[0], 0);
    out[t] = received[t];
  }
  device::cluster_sync();
}

__global__ void uninitialised_mbarrier() {
  device::SharedMemory memory;
  device::mbarrier_arrive(&memory.take<device::MBarrier>(1)[0]);
}

__global__ void missing_arrival() {
  device::SharedMemory memory;
  const device::Shared<device::MBarrier> barrier = memory.take<device::MBarrier>(1);
  if (device::thread() == 0) device::mbarrier_init(&barrier[0], device::threads() + 1);
  device::sync_threads();
  device::mbarrier_arrive(&barrier[0]);
  device::mbarrier_wait(&barrier[0], 0);
}

__global__ void remote_arrivals(float* out) {
  device::SharedMemory memory;
  const device::Shared<device::MBarrier> barrier = memory.take<device::MBarrier>(1);
  if (device::thread() == 0) {
    device::mbarrier_init(&barrier[0], device::cluster_size());
    device::mbarrier_init_done();
  }
  device::cluster_sync();
  if (device::thread() < device::cluster_size()) {
    device::mbarrier_arrive_remote(&device::map_shared(barrier, device::thread())[0]);
  }
  device::mbarrier_wait(&barrier[0], 0);
  if (device::thread() == 0) out[device::block_x()] = 1;
  device::cluster_sync();
}

}  // namespace fusedrnn::cuda::kernels
