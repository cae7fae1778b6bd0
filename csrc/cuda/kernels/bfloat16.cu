#include "cuda/kernels/define_kernels.h"

FUSEDRNN_DEFINE_CUDA_KERNELS(kBfloat16Kernels, Bf16, Bf16, Bf16)
