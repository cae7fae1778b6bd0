#include "cuda/kernels/define_kernels.h"

FUSEDRNN_DEFINE_CUDA_KERNELS(kDual64Kernels, Dual<double>, Dual<double>, Dual<double>)
