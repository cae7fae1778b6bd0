// Products by a kernel of our own: for machines without cuBLASLt, for the shapes it refuses, and
// for the emulator.
#pragma once

#include "cuda/gemm/gemm.h"

namespace fusedrnn::cuda {

class PlainGemm final : public Gemm {
 public:
  size_t workspace_bytes() const override { return 0; }
  void run(const Product& product, void* workspace, cudaStream_t stream) override;
};

}  // namespace fusedrnn::cuda
