// Values exchanged between the lanes of a warp. All 32 lanes take part, in the same call. T is a
// number of 32 or 64 bits.
#pragma once

#include "cuda/device/inline.h"

namespace fusedrnn::cuda::device {

constexpr unsigned kAllLanes = 0xffffffffu;

// The value of lane `from`.
template <class T>
FUSEDRNN_DEVICE T shuffle(T value, int from) {
  return __shfl_sync(kAllLanes, value, from);
}

// The value of lane `lane() + delta`; the last `delta` lanes keep their own.
template <class T>
FUSEDRNN_DEVICE T shuffle_down(T value, int delta) {
  return __shfl_down_sync(kAllLanes, value, static_cast<unsigned>(delta));
}

// The value of lane `lane() ^ mask`.
template <class T>
FUSEDRNN_DEVICE T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(kAllLanes, value, mask);
}

// The lanes whose predicate holds, one bit each.
FUSEDRNN_DEVICE unsigned ballot(bool predicate) { return __ballot_sync(kAllLanes, predicate); }

}  // namespace fusedrnn::cuda::device
