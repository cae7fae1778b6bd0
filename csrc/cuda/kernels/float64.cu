#include "cuda/kernels/unit.h"

FUSEDRNN_DEFINE_CUDA_UNIT(kFloat64Unit, double, double, double)
