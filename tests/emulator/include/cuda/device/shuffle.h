// The emulator's cuda/device/shuffle.h: a shuffle is a barrier of the warp, which all 32 lanes
// reach.
#pragma once

#include <cstring>

#include "cuda/device/inline.h"
#include "engine/kernel_run.h"

namespace fusedrnn::cuda::device {

constexpr unsigned kAllLanes = 0xffffffffu;

namespace shuffle_detail {

template <class T>
T take(const emulator::Warp::Offer& offer, int from) {
  static_assert(sizeof(T) <= sizeof offer.bytes[0]);
  T value;
  std::memcpy(&value, offer.bytes[from], sizeof value);
  return value;
}

}  // namespace shuffle_detail

template <class T>
FUSEDRNN_DEVICE T shuffle(T value, int from,
                          const emulator::Where& where = emulator::Where::current()) {
  return shuffle_detail::take<T>(emulator::exchange(&value, sizeof value, "a shuffle", where),
                                 from % emulator::kWarpThreads);
}

template <class T>
FUSEDRNN_DEVICE T shuffle_down(T value, int delta,
                               const emulator::Where& where = emulator::Where::current()) {
  const int own = emulator::self().index % emulator::kWarpThreads;
  const int from = own + delta < emulator::kWarpThreads ? own + delta : own;
  return shuffle_detail::take<T>(emulator::exchange(&value, sizeof value, "a shuffle", where),
                                 from);
}

template <class T>
FUSEDRNN_DEVICE T shuffle_xor(T value, int mask,
                              const emulator::Where& where = emulator::Where::current()) {
  const int from = (emulator::self().index ^ mask) % emulator::kWarpThreads;
  return shuffle_detail::take<T>(emulator::exchange(&value, sizeof value, "a shuffle", where),
                                 from);
}

FUSEDRNN_DEVICE unsigned ballot(bool predicate,
                                const emulator::Where& where = emulator::Where::current()) {
  const emulator::Warp::Offer& offer =
      emulator::exchange(&predicate, sizeof predicate, "a ballot", where);
  unsigned bits = 0;
  for (int i = 0; i < emulator::kWarpThreads; ++i) {
    bits |= static_cast<unsigned>(shuffle_detail::take<bool>(offer, i)) << i;
  }
  return bits;
}

}  // namespace fusedrnn::cuda::device
