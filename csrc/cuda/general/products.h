// The products of one call: its format, its workspace and its stream, said once.
#pragma once

#include "cuda/gemm/gemm.h"
#include "cuda/kernels/step.h"

namespace fusedrnn::cuda {

struct Products {
  Gemm& gemm;
  Dtype operand;  // the type of what is multiplied
  bool tfloat32;
  void* workspace;
  cudaStream_t stream;

  struct Sizes {
    int64_t m, n, k, batch = 1;
  };

  void run(const Sizes& sizes, const Operand& a, const Operand& b, const Result& c, Dtype result,
           bool accumulate = false) const {
    gemm.run({.m = sizes.m,
              .n = sizes.n,
              .k = sizes.k,
              .batch = sizes.batch,
              .a = a,
              .b = b,
              .c = c,
              .operand = operand,
              .result = result,
              .tfloat32 = tfloat32,
              .accumulate = accumulate},
             workspace, stream);
  }
};

}  // namespace fusedrnn::cuda
