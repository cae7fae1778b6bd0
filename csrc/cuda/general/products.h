// The products of one call: its format, its workspace and its stream, said once.
#pragma once

#include "cuda/gemm/gemm.h"
#include "cuda/general/run.h"
#include "cuda/rows.h"

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

// u = what a stage multiplies, `rows` rows of it, times its weights, transposed.
inline void multiply_rows(const Products& products, const Run::ProductShape& shape, int64_t rows,
                          const void* multiplied, const Matrix& w, const Matrix& u,
                          const Types& types) {
  const int64_t height = shape.head_rows();
  for (int64_t part = 0; part < shape.parts; ++part) {
    const int64_t row = part * shape.part_rows();
    products.run({rows, height, shape.depth, shape.heads},
                 {multiplied, row_stride(shape.width()), false, shape.to_next_head(shape.depth)},
                 {advance(w.data, (shape.first_row + row) * w.stride, types.row), w.stride, true,
                  shape.to_next_head(height * w.stride)},
                 {advance(u.data, row, types.real), u.stride, shape.to_next_head(height)},
                 types.real);
  }
}

}  // namespace fusedrnn::cuda
