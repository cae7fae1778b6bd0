#include "cuda/kernels/unit.h"

FUSEDRNN_DEFINE_CUDA_UNIT(kFloat32Unit, float, float, float)
