// The emulator's cuda/device/thread.h.
#pragma once

#include "cuda/device/inline.h"
#include "engine/kernel_run.h"

namespace fusedrnn::cuda::device {

constexpr int kWarp = emulator::kWarpThreads;

FUSEDRNN_DEVICE int thread() { return emulator::self().index; }
FUSEDRNN_DEVICE int threads() { return emulator::self().block->thread_count; }
FUSEDRNN_DEVICE int lane() { return thread() % kWarp; }
FUSEDRNN_DEVICE int warp() { return thread() / kWarp; }

FUSEDRNN_DEVICE int block_x() { return emulator::self().block->index.x; }
FUSEDRNN_DEVICE int block_y() { return emulator::self().block->index.y; }
FUSEDRNN_DEVICE int block_z() { return emulator::self().block->index.z; }
FUSEDRNN_DEVICE int blocks_x() { return emulator::self().block->run->kernel().shape.grid_x; }
FUSEDRNN_DEVICE int blocks_y() { return emulator::self().block->run->kernel().shape.grid_y; }
FUSEDRNN_DEVICE int blocks_z() { return emulator::self().block->run->kernel().shape.grid_z; }

}  // namespace fusedrnn::cuda::device
