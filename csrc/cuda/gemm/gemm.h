// Matrix products on the device, whoever computes them.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/problem.h"

namespace fusedrnn::cuda {

// A row-major matrix of `stride` elements a row, or as many as `batch` of a product.
struct Operand {
  const void* data = nullptr;
  int64_t stride = 0;
  bool transposed = false;  // the product reads its transpose
  int64_t batch_stride = 0;
};

struct Result {
  void* data = nullptr;
  int64_t stride = 0;
  int64_t batch_stride = 0;
};

// c = a * b, or c += a * b, for each of `batch`: c is [m,n], a [m,k] and b [k,n] after transposing.
// Sums are in float32, of float64 in float64, and c is rounded once.
struct Product {
  int64_t m = 0, n = 0, k = 0, batch = 1;
  Operand a, b;
  Result c;
  Dtype operand = Dtype::float32;  // of a and b
  Dtype result = Dtype::float32;   // `operand`, or float32
  bool tfloat32 = false;           // float32 operands rounded to 10 bits of fraction
  bool accumulate = false;
};

// The same product of the same shape, strides and alignment gives the same bits every time.
class Gemm {
 public:
  virtual ~Gemm() = default;
  // Memory that run() needs beside the operands.
  virtual size_t workspace_bytes() const = 0;
  virtual void run(const Product& product, void* workspace, cudaStream_t stream) = 0;
};

// What computes the products of the current device, for as long as the process lives.
Gemm& gemm_of_device(int device);

// A line about it, of which the first call decides what is used: FUSEDRNN_CUDA_GEMM=plain or
// cublaslt, else cuBLASLt where it is found.
std::string gemm_description();

// Notes that the plain kernel computes a product that was cuBLASLt's; `why`: a text that stays.
void note_plain_product(const Product& product, const char* why);

// How many have been noted; the description says what the latest was.
int64_t plain_products();

}  // namespace fusedrnn::cuda
