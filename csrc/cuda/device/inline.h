// What a function that runs on the device is declared with.
#pragma once

#include <cuda_runtime.h>

#define FUSEDRNN_DEVICE __device__ __forceinline__
