#include "cuda/kernels/unit.h"

FUSEDRNN_DEFINE_CUDA_UNIT(kFloat16Unit, Half, Half, float)
