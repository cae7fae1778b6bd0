// The flags of a call, from lengths and resets wherever they lie.
#pragma once

#include <cuda_runtime.h>

#include "core/cuda_plugin.h"
#include "cuda/runtime/layout.h"

namespace fusedrnn::cuda {

class Masks {
 public:
  Masks(const CudaMasks& masks, const Problem& problem);

  bool any() const { return masks_.lengths != nullptr || masks_.resets != nullptr; }
  bool has_lengths() const { return masks_.lengths != nullptr; }

  void reserve(Layout& layout);
  // Writes the flags [T,B]. Host arrays are read before this returns, and travel in the parameters
  // of launches.
  void make_flags(char* memory, uint8_t* flags, cudaStream_t stream) const;

 private:
  void send_lengths(uint64_t* to, cudaStream_t stream) const;
  void send_resets(uint8_t* to, cudaStream_t stream) const;

  const CudaMasks masks_;
  const Problem& problem_;
  const bool host_lengths_, host_resets_;
  size_t lengths_ = 0, resets_ = 0;  // offsets
};

}  // namespace fusedrnn::cuda
