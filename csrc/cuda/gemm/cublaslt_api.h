// The part of cuBLASLt's interface that is used, declared here because its headers are often absent
// where the library is not. Names and values are those of NVIDIA's documentation (cuBLASLt API,
// versions 12 and 13).
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace fusedrnn::cuda::cublaslt {

using Status = int;  // cublasStatus_t
constexpr Status kSuccess = 0;
constexpr Status kNotSupported = 15;

using Handle = struct HandleOpaque*;              // cublasLtHandle_t
using MatmulDesc = struct MatmulDescOpaque*;      // cublasLtMatmulDesc_t
using MatrixLayout = struct MatrixLayoutOpaque*;  // cublasLtMatrixLayout_t
using Preference = struct PreferenceOpaque*;      // cublasLtMatmulPreference_t

struct Algo {  // cublasLtMatmulAlgo_t
  uint64_t data[8];
};
struct HeuristicResult {  // cublasLtMatmulHeuristicResult_t
  Algo algo;
  size_t workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};

enum DataType : int { kR32F = 0, kR64F = 1, kR16F = 2, kR16BF = 14 };     // cudaDataType
enum ComputeType : int { k32F = 68, k64F = 70, k32FFastTF32 = 77 };       // cublasComputeType_t
enum Operation : int { kN = 0, kT = 1 };                                  // cublasOperation_t
enum MatmulDescAttribute : int { kTransA = 3, kTransB = 4 };              // ...DESC_TRANSA
enum LayoutAttribute : int { kBatchCount = 5, kStridedBatchOffset = 6 };  // ...LAYOUT_...
enum PreferenceAttribute : int {                                          // ...PREF_...
  kMaxWorkspaceBytes = 1,
  kReductionSchemeMask = 3,
  kMinAlignmentA = 5,
  kMinAlignmentB = 6,
  kMinAlignmentC = 7,
  kMinAlignmentD = 8,
};
// Parts of a sum meet in the workspace, in the type of the sum and in a fixed order. The other
// schemes add up in the output's type.
constexpr uint32_t kReductionComputeType = 2;

// The functions, found in the library by the names in comments.
struct Api {
  size_t (*version)();                                        // cublasLtGetVersion
  Status (*create)(Handle*);                                  // cublasLtCreate
  Status (*desc_create)(MatmulDesc*, ComputeType, DataType);  // cublasLtMatmulDescCreate
  Status (*desc_destroy)(MatmulDesc);                         // cublasLtMatmulDescDestroy
  Status (*desc_set)(MatmulDesc, MatmulDescAttribute, const void*,
                     size_t);  // cublasLtMatmulDescSetAttribute
  Status (*layout_create)(MatrixLayout*, DataType, uint64_t rows, uint64_t columns,
                          int64_t ld);     // cublasLtMatrixLayoutCreate
  Status (*layout_destroy)(MatrixLayout);  // cublasLtMatrixLayoutDestroy
  Status (*layout_set)(MatrixLayout, LayoutAttribute, const void*,
                       size_t);              // cublasLtMatrixLayoutSetAttribute
  Status (*preference_create)(Preference*);  // cublasLtMatmulPreferenceCreate
  Status (*preference_destroy)(Preference);  // cublasLtMatmulPreferenceDestroy
  Status (*preference_set)(Preference, PreferenceAttribute, const void*,
                           size_t);  // cublasLtMatmulPreferenceSetAttribute
  Status (*heuristic)(Handle, MatmulDesc, MatrixLayout a, MatrixLayout b, MatrixLayout c,
                      MatrixLayout d, Preference, int wanted, HeuristicResult*,
                      int* found);  // cublasLtMatmulAlgoGetHeuristic
  Status (*matmul)(Handle, MatmulDesc, const void* alpha, const void* a, MatrixLayout,
                   const void* b, MatrixLayout, const void* beta, const void* c, MatrixLayout,
                   void* d, MatrixLayout, const Algo*, void* workspace, size_t workspace_bytes,
                   cudaStream_t);  // cublasLtMatmul
};

}  // namespace fusedrnn::cuda::cublaslt
