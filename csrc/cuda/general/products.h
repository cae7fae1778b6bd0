// The products of one call: its format, its workspace and its stream, said once.
#pragma once

#include "cuda/gemm/gemm.h"
#include "cuda/kernels/step.h"

namespace fusedrnn::cuda {

// Offset by whole elements.
inline const void* advance(const void* data, int64_t elements, size_t bytes) {
  return static_cast<const char*>(data) + elements * static_cast<int64_t>(bytes);
}
inline void* advance(void* data, int64_t elements, size_t bytes) {
  return static_cast<char*>(data) + elements * static_cast<int64_t>(bytes);
}

class Products {
 public:
  // `operand`: the type of what is multiplied.
  Products(Gemm& gemm, Dtype operand, bool tfloat32, void* workspace, cudaStream_t stream)
      : gemm_(gemm),
        operand_(operand),
        tfloat32_(tfloat32),
        workspace_(workspace),
        stream_(stream) {}

  struct Sizes {
    int64_t m, n, k, batch = 1;
  };

  void run(const Sizes& sizes, const Operand& a, const Operand& b, const Result& c, Dtype result,
           bool accumulate = false) const {
    Product product;
    product.m = sizes.m;
    product.n = sizes.n;
    product.k = sizes.k;
    product.batch = sizes.batch;
    product.a = a;
    product.b = b;
    product.c = c;
    product.operand = operand_;
    product.result = result;
    product.tfloat32 = tfloat32_;
    product.accumulate = accumulate;
    gemm_.run(product, workspace_, stream_);
  }

 private:
  Gemm& gemm_;
  const Dtype operand_;
  const bool tfloat32_;
  void* const workspace_;
  const cudaStream_t stream_;
};

}  // namespace fusedrnn::cuda
