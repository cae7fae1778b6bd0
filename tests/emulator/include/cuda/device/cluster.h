// The emulator's cuda/device/cluster.h: see engine/cluster.h.
#pragma once

#include "cuda/device/inline.h"
#include "cuda/device/mbarrier.h"
#include "cuda/device/shared.h"
#include "engine/cluster.h"

namespace fusedrnn::cuda::device {

FUSEDRNN_DEVICE int cluster_rank() { return emulator::rank_in_cluster(*emulator::self().block); }
FUSEDRNN_DEVICE int cluster_size() { return emulator::self().block->run->kernel().shape.cluster; }

FUSEDRNN_DEVICE void cluster_arrive(const emulator::Where& where = emulator::Where::current()) {
  emulator::publish(emulator::self());
  emulator::arrive_in_cluster(where);
}
FUSEDRNN_DEVICE void cluster_arrive_relaxed(
    const emulator::Where& where = emulator::Where::current()) {
  emulator::arrive_in_cluster(where);
}
FUSEDRNN_DEVICE void cluster_wait(const emulator::Where& where = emulator::Where::current()) {
  emulator::wait_in_cluster(where);
}
FUSEDRNN_DEVICE void cluster_sync(const emulator::Where& where = emulator::Where::current()) {
  cluster_arrive(where);
  cluster_wait(where);
}

template <class T>
FUSEDRNN_DEVICE Shared<T> map_shared(Shared<T> local, int rank) {
  emulator::Block& owner = emulator::block_of_cluster(rank);
  const auto* const base = emulator::self().block->shared;
  const auto offset = reinterpret_cast<const unsigned char*>(local.data()) - base;
  return Shared<T>(reinterpret_cast<T*>(owner.shared + offset), local.count(), &owner);
}

template <class T>
FUSEDRNN_DEVICE void store_async(T* to, T value, MBarrier* barrier) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  emulator::copy_later(&barrier->state, sizeof(T), [=] { *to = value; });
}

}  // namespace fusedrnn::cuda::device
