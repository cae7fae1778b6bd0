#include "cuda/kernels/define_kernels.h"

FUSEDRNN_DEFINE_CUDA_KERNELS(kMixedKernels, float, Bf16, Bf16)
