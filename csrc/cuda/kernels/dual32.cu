#include "cuda/kernels/define_kernels.h"

FUSEDRNN_DEFINE_CUDA_KERNELS(kDual32Kernels, Dual<float>, Dual<float>, Dual<float>)
