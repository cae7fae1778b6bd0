// The emulator's cuda/device/mbarrier.h.
#pragma once

#include "cuda/device/inline.h"
#include "engine/mbarrier.h"
#include "engine/weak_memory.h"

namespace fusedrnn::cuda::device {

struct alignas(8) MBarrier {
  emulator::MBarrierState state;
};
static_assert(sizeof(MBarrier) == 8);

FUSEDRNN_DEVICE void mbarrier_init(MBarrier* barrier, int arrivals) {
  barrier->state.init(arrivals);
}

FUSEDRNN_DEVICE void mbarrier_init_done() {}

FUSEDRNN_DEVICE void mbarrier_arrive(MBarrier* barrier) {
  emulator::show_to_block(emulator::self());
  barrier->state.arrive("mbarrier_arrive");
}

FUSEDRNN_DEVICE void mbarrier_arrive_expect(MBarrier* barrier, int bytes) {
  emulator::show_to_block(emulator::self());
  barrier->state.expect(bytes);
  barrier->state.arrive("mbarrier_arrive_expect");
}

FUSEDRNN_DEVICE void mbarrier_arrive_remote(MBarrier* barrier) {
  emulator::publish(emulator::self());
  barrier->state.arrive("mbarrier_arrive_remote");
}

FUSEDRNN_DEVICE void mbarrier_wait(MBarrier* barrier, int parity,
                                   const emulator::Where& where = emulator::Where::current()) {
  emulator::wait_for_phase(&barrier->state, parity, where);
}

}  // namespace fusedrnn::cuda::device
