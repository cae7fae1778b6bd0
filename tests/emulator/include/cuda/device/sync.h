// The emulator's cuda/device/sync.h: the same functions, which count arrivals.
#pragma once

#include "cuda/device/inline.h"
#include "engine/kernel_run.h"

namespace fusedrnn::cuda::device {

FUSEDRNN_DEVICE void sync_threads(const emulator::Where& where = emulator::Where::current()) {
  emulator::self().block->sync(where);
}

FUSEDRNN_DEVICE void sync_warp(const emulator::Where& where = emulator::Where::current()) {
  emulator::Thread& self = emulator::self();
  self.block->warp_of(self).sync(where);
}

FUSEDRNN_DEVICE void sync_named(int id, int count,
                                const emulator::Where& where = emulator::Where::current()) {
  emulator::self().block->named_barrier(id, count).arrive_and_wait(count, where);
}
FUSEDRNN_DEVICE void arrive_named(int id, int count,
                                  const emulator::Where& where = emulator::Where::current()) {
  emulator::self().block->named_barrier(id, count).arrive(count, where);
}

}  // namespace fusedrnn::cuda::device
