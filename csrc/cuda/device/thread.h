// Which thread of which block this is. Blocks have one dimension, grids up to three.
#pragma once

#include "cuda/device/inline.h"

namespace fusedrnn::cuda::device {

constexpr int kWarp = 32;  // threads of a warp

FUSEDRNN_DEVICE int thread() { return static_cast<int>(threadIdx.x); }
FUSEDRNN_DEVICE int threads() { return static_cast<int>(blockDim.x); }  // of the block
FUSEDRNN_DEVICE int lane() { return thread() % kWarp; }
FUSEDRNN_DEVICE int warp() { return thread() / kWarp; }

FUSEDRNN_DEVICE int block_x() { return static_cast<int>(blockIdx.x); }
FUSEDRNN_DEVICE int block_y() { return static_cast<int>(blockIdx.y); }
FUSEDRNN_DEVICE int block_z() { return static_cast<int>(blockIdx.z); }
FUSEDRNN_DEVICE int blocks_x() { return static_cast<int>(gridDim.x); }
FUSEDRNN_DEVICE int blocks_y() { return static_cast<int>(gridDim.y); }
FUSEDRNN_DEVICE int blocks_z() { return static_cast<int>(gridDim.z); }

}  // namespace fusedrnn::cuda::device
