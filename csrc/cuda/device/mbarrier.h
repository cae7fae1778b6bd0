// Barriers in shared memory, which count arrivals of threads and bytes of asynchronous copies.
//
// One thread initialises, with the number of arrivals of a phase; mbarrier_init_done() and a
// barrier of the block, or of the cluster, come before its first use. A phase ends when all have
// arrived and all expected bytes have come. Phases have parities 0, 1, 0, ...: a thread waits for
// the end of the phase of a parity, and must not fall more than a phase behind.
#pragma once

#include <cstdint>

#include "cuda/device/inline.h"
#include "cuda/device/sm90.h"

namespace fusedrnn::cuda::device {

struct alignas(8) MBarrier {
  uint64_t state;
};

namespace mbarrier_detail {

FUSEDRNN_DEVICE bool phase_ended(uint32_t address, uint32_t parity) {
  uint32_t ended;
#if __CUDA_ARCH__ >= 900
  asm volatile(  // it may sleep for a while before it answers
      "{ .reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; "
      "selp.u32 %0, 1, 0, p; }"
      : "=r"(ended)
      : "r"(address), "r"(parity)
      : "memory");
#else
  asm volatile(
      "{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
      : "=r"(ended)
      : "r"(address), "r"(parity)
      : "memory");
#endif
  return ended != 0;
}

}  // namespace mbarrier_detail

FUSEDRNN_DEVICE void mbarrier_init(MBarrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals)
               : "memory");
}

// By the thread that initialised: asynchronous copies and other blocks of the cluster see it.
FUSEDRNN_DEVICE void mbarrier_init_done() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

FUSEDRNN_DEVICE void mbarrier_arrive(MBarrier* barrier) {
  asm volatile("{ .reg .b64 t; mbarrier.arrive.shared.b64 t, [%0]; }" ::"r"(shared_address(barrier))
               : "memory");
}

// Arrives, and lets the phase wait for `bytes` more bytes of copies.
FUSEDRNN_DEVICE void mbarrier_arrive_expect(MBarrier* barrier, int bytes) {
  FUSEDRNN_SM90(asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes) : "memory"));
}

// Arrives at the barrier of another block: `barrier` is map_shared's.
FUSEDRNN_DEVICE void mbarrier_arrive_remote(MBarrier* barrier) {
  FUSEDRNN_SM90(asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(
      shared_address(barrier)) : "memory"));
}

// Until the phase of this parity has ended.
FUSEDRNN_DEVICE void mbarrier_wait(MBarrier* barrier, int parity) {
  const uint32_t address = shared_address(barrier);
  while (!mbarrier_detail::phase_ended(address, static_cast<uint32_t>(parity))) {
  }
}

}  // namespace fusedrnn::cuda::device
