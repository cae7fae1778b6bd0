// What the flags of a step say of one of its sequences.
#pragma once

#include <cstdint>

#include "core/problem.h"
#include "cuda/device/inline.h"

namespace fusedrnn::cuda {

// Whether y holds the state that leaves a step, and takes its gradient; null flags: it does.
FUSEDRNN_DEVICE bool is_shown(const uint8_t* flags, int64_t b) {
  return flags == nullptr || (flags[b] & kShown) != 0;
}

// Whether the reset state, or zero, enters a step; null flags: it does not.
FUSEDRNN_DEVICE bool is_cut(const uint8_t* flags, int64_t b) {
  return flags != nullptr && (flags[b] & kCut) != 0;
}

// Whether a step multiplies the state that enters it; null flags: it does. Where it does not, the
// product of its gates' gradients is no gradient: not even zero, where a weight is NaN.
FUSEDRNN_DEVICE bool is_multiplied(const uint8_t* flags, int64_t b) {
  return flags == nullptr || (flags[b] & (kValid | kCut)) == kValid;
}

}  // namespace fusedrnn::cuda
