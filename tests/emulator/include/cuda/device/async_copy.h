// The emulator's cuda/device/async_copy.h: a copy happens as late as it may.
#pragma once

#include <cstring>

#include "cuda/device/inline.h"
#include "cuda/device/mbarrier.h"
#include "cuda/device/shared.h"
#include "engine/copies.h"

namespace fusedrnn::cuda::device {

template <class T>
FUSEDRNN_DEVICE void copy_async(T* to_shared, const T* from) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
  emulator::check_aligned(from, sizeof(T));
  emulator::check_aligned(to_shared, sizeof(T));
  emulator::self().copies.add({to_shared, from, sizeof(T)});
}

FUSEDRNN_DEVICE void copy_async_commit() { emulator::self().copies.commit(); }

template <int Groups>
FUSEDRNN_DEVICE void copy_async_wait() {
  emulator::self().copies.wait(Groups);
}

namespace async_copy_detail {

template <class T>
int checked_bytes(const Shared<T>& to, const void* from, int count) {
  to.check_range(count);
  const int bytes = count * static_cast<int>(sizeof(T));
  if (bytes % 16 != 0) {
    emulator::fail("a bulk copy of " + std::to_string(bytes) + " bytes, no multiple of 16");
  }
  emulator::check_aligned(to.data(), 16);
  emulator::check_aligned(from, 16);
  return bytes;
}

}  // namespace async_copy_detail

template <class T>
FUSEDRNN_DEVICE void copy_bulk(Shared<T> to, const T* from, int count, MBarrier* barrier) {
  const int bytes = async_copy_detail::checked_bytes(to, from, count);
  emulator::copy_later(&barrier->state, bytes,
                       [=] { std::memcpy(to.data(), from, static_cast<size_t>(bytes)); });
}

template <class T>
FUSEDRNN_DEVICE void copy_bulk_remote(Shared<T> to, Shared<T> from, int count, MBarrier* barrier) {
  const int bytes = async_copy_detail::checked_bytes(to, from.data(), count);
  from.check_range(count);
  emulator::copy_later(&barrier->state, bytes,
                       [=] { std::memcpy(to.data(), from.data(), static_cast<size_t>(bytes)); });
}

FUSEDRNN_DEVICE void fence_for_bulk() {}

}  // namespace fusedrnn::cuda::device
