// The flags of a call, from lengths, mask and resets wherever they lie.
#pragma once

#include <cuda_runtime.h>

#include "core/cuda_plugin.h"
#include "cuda/kernels/masks.h"
#include "cuda/order.h"
#include "cuda/runtime/layout.h"

namespace fusedrnn::cuda {

class Masks {
 public:
  Masks(const CudaMasks& masks, const Problem& problem, const Order& order);

  bool any() const { return masks_.any(); }

  void reserve(Layout& layout);
  // Writes the flags [T,B], by place, and the order. Host arrays are read before this returns, and
  // travel in the parameters of launches.
  void make_flags(char* memory, uint8_t* flags, const DeviceOrder& order,
                  cudaStream_t stream) const;

 private:
  void send_lengths(uint64_t* to, cudaStream_t stream) const;
  // Where they lie on the device: where the caller has them, or sent to `to`.
  DeviceIntegers lengths(char* to, cudaStream_t stream) const;
  DeviceBits bits_of(const DLTensor* t, char* to, cudaStream_t stream) const;

  const CudaMasks masks_;
  const Problem& problem_;
  const Order& order_;
  size_t lengths_ = 0, mask_ = 0, resets_ = 0;  // offsets
};

}  // namespace fusedrnn::cuda
