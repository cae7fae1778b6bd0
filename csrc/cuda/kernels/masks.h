// lengths, mask and resets as one flag byte (StepFlag) for each step of each sequence.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/kernels/order.h"

namespace fusedrnn::cuda {

// Integers of 1 to 8 bytes in device memory.
struct DeviceIntegers {
  const void* data = nullptr;  // null: not given
  int bytes = 0;
  bool is_signed = false;
  int64_t stride = 0;  // in elements
};

// Bytes [T,B] that are zero or not, in device memory.
struct DeviceBits {
  const uint8_t* data = nullptr;  // null: not given
  int64_t t_stride = 0, b_stride = 0;
};

struct MaskArrays {
  int64_t T, B;
  bool reverse, shows_padding;
  DeviceIntegers lengths;  // [B]; limited to 0..T
  DeviceBits mask, resets;
  uint8_t* flags;  // [T,B], written, by place
  // Read where the sequences are ordered, lengths too; otherwise written as that of no order.
  DeviceOrder order;
  bool ordered;
};

void make_flags(const MaskArrays& masks, cudaStream_t stream);

// Values that travel inside a launch: a launch that is part of a graph then refers to no host
// memory. Below 4 KiB, which is what every driver accepts as parameters.
constexpr int kCarriedWords = 440;
struct CarriedWords {
  uint64_t words[kCarriedWords];
};

// to[i] = words[i] for i < count.
void write_words(const CarriedWords& carried, int64_t count, uint64_t* to, cudaStream_t stream);
// to[i] = bit i of the words, for i < count.
void write_bits(const CarriedWords& carried, int64_t count, uint8_t* to, cudaStream_t stream);

}  // namespace fusedrnn::cuda
