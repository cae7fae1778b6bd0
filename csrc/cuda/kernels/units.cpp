#include "core/error.h"
#include "cuda/kernels/step.h"

namespace fusedrnn::cuda {

const Unit& unit_of(const Problem& problem) {
  if (problem.compute == Compute::int8) {
    throw Error(FUSEDRNN_UNAVAILABLE,
                "compute: FUSEDRNN_COMPUTE_INT8 does not run on CUDA devices");
  }
  switch (problem.dtype) {
    case Dtype::float64:
      return kFloat64Unit;
    case Dtype::bfloat16:
      return kBfloat16Unit;
    case Dtype::float16:
      return kFloat16Unit;
    case Dtype::float32:
      break;
  }
  return problem.compute == Compute::bfloat16 ? kMixedUnit : kFloat32Unit;
}

}  // namespace fusedrnn::cuda
