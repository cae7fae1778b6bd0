// Copies from global to shared memory that go on while the thread does.
#pragma once

#include <cstdint>

#include "cuda/device/inline.h"
#include "cuda/device/mbarrier.h"
#include "cuda/device/shared.h"
#include "cuda/device/sm90.h"

namespace fusedrnn::cuda::device {

// One element of 4, 8 or 16 bytes, aligned to its size. It is there, for this thread, behind a
// copy_async_wait that covers its group.
template <class T>
FUSEDRNN_DEVICE void copy_async(T* to_shared, const T* from) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
  if constexpr (sizeof(T) == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to_shared)),
                 "l"(from)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared_address(to_shared)),
                 "l"(from), "n"(sizeof(T))
                 : "memory");
  }
}

// Ends a group of this thread's copies.
FUSEDRNN_DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until at most `Groups` of this thread's last groups are under way.
template <int Groups>
FUSEDRNN_DEVICE void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Groups) : "memory");
}

// `count` elements, a multiple of 16 bytes, at addresses aligned to 16, by one thread; the bytes
// are counted at the barrier, which some arrival must have been told to expect. Needs sm_90.
template <class T>
FUSEDRNN_DEVICE void copy_bulk(Shared<T> to, const T* from, int count, MBarrier* barrier) {
  FUSEDRNN_SM90(asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(to.data())),
      "l"(from), "r"(count * static_cast<int>(sizeof(T))),
      "r"(shared_address(barrier)) : "memory"));
}

// The same from this block's shared memory into that of another of its cluster: `to` and `barrier`
// are map_shared's, of the same rank. fence_for_bulk() comes before it.
template <class T>
FUSEDRNN_DEVICE void copy_bulk_remote(Shared<T> to, Shared<T> from, int count, MBarrier* barrier) {
  FUSEDRNN_SM90(asm volatile(
      "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, "
      "[%3];" ::"r"(shared_address(to.data())),
      "r"(shared_address(from.data())), "r"(count * static_cast<int>(sizeof(T))),
      "r"(shared_address(barrier)) : "memory"));
}

// What this thread wrote to shared memory is read by bulk copies that begin behind it.
FUSEDRNN_DEVICE void fence_for_bulk() {
  FUSEDRNN_SM90(asm volatile("fence.proxy.async.shared::cta;" :: : "memory"));
}

}  // namespace fusedrnn::cuda::device
