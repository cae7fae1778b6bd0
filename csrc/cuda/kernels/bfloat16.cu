#include "cuda/kernels/unit.h"

FUSEDRNN_DEFINE_CUDA_UNIT(kBfloat16Unit, Bf16, Bf16, Bf16)
