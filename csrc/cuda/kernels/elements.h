// Kernels with a thread for each element of rows of columns: their loop, and the shape of their
// launch. Neighbouring threads have neighbouring columns; a grid too small for all goes around.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/device/launch_shape.h"
#include "cuda/device/thread.h"

namespace fusedrnn::cuda {

constexpr int kElementBlock = 128;  // threads of a block, at most

// Calls body(row, column) for each element.
template <class Body>
FUSEDRNN_DEVICE void for_elements(int64_t rows, int64_t columns, const Body& body) {
  // Rows and columns are axes of the grid: to find them in one number would take divisions.
  for (int64_t row = device::block_y(); row < rows; row += device::blocks_y()) {
    int64_t column = device::block_x() * device::threads() + device::thread();
    for (; column < columns; column += device::blocks_x() * device::threads()) body(row, column);
  }
}

inline device::LaunchShape shape_of_elements(int64_t rows, int64_t columns, const char* name) {
  constexpr int64_t kMostBlocks = int64_t{1} << 20, kMostRows = 65535;  // of a grid
  device::LaunchShape shape;
  const int64_t threads = (columns + device::kWarp - 1) / device::kWarp * device::kWarp;
  shape.block = static_cast<int>(std::min<int64_t>(threads, kElementBlock));
  const int64_t blocks = (columns + shape.block - 1) / shape.block;
  shape.grid_x = static_cast<int>(std::min(blocks, kMostBlocks));
  shape.grid_y = static_cast<int>(std::clamp<int64_t>(rows, 1, kMostRows));
  shape.name = name;
  return shape;
}

}  // namespace fusedrnn::cuda
