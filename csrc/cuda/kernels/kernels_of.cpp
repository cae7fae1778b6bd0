#include "core/error.h"
#include "cuda/kernels/step.h"

namespace fusedrnn::cuda {

const Kernels& kernels_of(const Problem& problem) {
  if (problem.compute == Compute::int8) {
    throw Error(FUSEDRNN_UNAVAILABLE,
                "compute: FUSEDRNN_COMPUTE_INT8 does not run on CUDA devices");
  }
  switch (problem.dtype) {
    case Dtype::float64:
      return kFloat64Kernels;
    case Dtype::bfloat16:
      return kBfloat16Kernels;
    case Dtype::float16:
      return kFloat16Kernels;
    case Dtype::dual32:
      return kDual32Kernels;
    case Dtype::dual64:
      return kDual64Kernels;
    case Dtype::float32:
      break;
  }
  return problem.compute == Compute::bfloat16 ? kMixedKernels : kFloat32Kernels;
}

}  // namespace fusedrnn::cuda
