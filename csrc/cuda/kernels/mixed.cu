#include "cuda/kernels/unit.h"

FUSEDRNN_DEFINE_CUDA_UNIT(kMixedUnit, float, Bf16, Bf16)
