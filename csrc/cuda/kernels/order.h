// The order of a call's sequences on the device (cuda/order.h). What is ours of them lies by place,
// or packed: the rows that live at the first step, then those of the next; what is the caller's
// lies by number.
#pragma once

#include <cstdint>

#include "cuda/device/inline.h"

namespace fusedrnn::cuda {

// Null addresses: places are numbers, and every sequence lives at every step.
struct DeviceOrder {
  int64_t* numbers = nullptr;     // [B]: of the sequence at each place
  int64_t* ends = nullptr;        // [B]: by place, the time after its last step
  int64_t* first_rows = nullptr;  // [T+1]: rows that live at times before this one
};

FUSEDRNN_DEVICE int64_t number_of(const int64_t* numbers, int64_t place) {
  return numbers == nullptr ? place : numbers[place];
}

}  // namespace fusedrnn::cuda
