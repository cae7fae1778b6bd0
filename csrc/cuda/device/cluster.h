// Clusters: neighbouring blocks along x that run at once, wait for one another and reach into one
// another's shared memory. Needs sm_90.
#pragma once

#include <cstdint>

#include "cuda/device/inline.h"
#include "cuda/device/mbarrier.h"
#include "cuda/device/shared.h"
#include "cuda/device/sm90.h"

namespace fusedrnn::cuda::device {

FUSEDRNN_DEVICE int cluster_rank() {
  uint32_t rank = 0;
  FUSEDRNN_SM90(asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank)));
  return static_cast<int>(rank);
}

FUSEDRNN_DEVICE int cluster_size() {
  uint32_t size = 0;
  FUSEDRNN_SM90(asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(size)));
  return static_cast<int>(size);
}

// The two halves of a barrier of all threads of the cluster. What was written before an arrival,
// all may read behind the wait; a relaxed arrival says nothing about memory.
FUSEDRNN_DEVICE void cluster_arrive() {
  FUSEDRNN_SM90(asm volatile("barrier.cluster.arrive.release.aligned;" :: : "memory"));
}
FUSEDRNN_DEVICE void cluster_arrive_relaxed() {
  FUSEDRNN_SM90(asm volatile("barrier.cluster.arrive.relaxed.aligned;" :: : "memory"));
}
FUSEDRNN_DEVICE void cluster_wait() {
  FUSEDRNN_SM90(asm volatile("barrier.cluster.wait.acquire.aligned;" :: : "memory"));
}
FUSEDRNN_DEVICE void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}

// The same array in the shared memory of block `rank` of the cluster. That block must not have
// ended while it is used.
template <class T>
FUSEDRNN_DEVICE Shared<T> map_shared(Shared<T> local, int rank) {
  uint64_t remote = 0;
  FUSEDRNN_SM90(asm volatile("mapa.u64 %0, %1, %2;" : "=l"(remote) : "l"(local.data()), "r"(rank)));
  return Shared<T>(reinterpret_cast<T*>(remote));
}

// Stores 4 or 8 bytes in another block, and counts them at a barrier of that block. Both addresses
// are map_shared's, of the same rank.
template <class T>
FUSEDRNN_DEVICE void store_async(T* to, T value, MBarrier* barrier) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  if constexpr (sizeof(T) == 4) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    FUSEDRNN_SM90(asm volatile(
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%0], %1, [%2];" ::"r"(
            shared_address(to)),
        "r"(bits), "r"(shared_address(barrier)) : "memory"));
  } else {
    uint64_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    FUSEDRNN_SM90(asm volatile(
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.u64 [%0], %1, [%2];" ::"r"(
            shared_address(to)),
        "l"(bits), "r"(shared_address(barrier)) : "memory"));
  }
}

}  // namespace fusedrnn::cuda::device
