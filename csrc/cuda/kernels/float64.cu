#include "cuda/kernels/define_kernels.h"

FUSEDRNN_DEFINE_CUDA_KERNELS(kFloat64Kernels, double, double, double)
