// Kernels with a thread for each element of rows of columns: their loop, and the shape of their
// launch. Neighbouring threads have neighbouring columns; a grid too small for all goes around.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/device/launch_shape.h"
#include "cuda/device/thread.h"

namespace fusedrnn::cuda {

constexpr int kElementBlock = 128;  // threads of a block, at most

// a / b of numbers that are not negative. A division of 64 bits is some eighty instructions, one of
// 32 bits some twenty.
FUSEDRNN_DEVICE int64_t quotient(int64_t a, int64_t b) {
  if (((a | b) >> 32) == 0) {
    return static_cast<int64_t>(static_cast<uint32_t>(a) / static_cast<uint32_t>(b));
  }
  return a / b;
}

// Calls body(row, column) for each element.
template <class Body>
FUSEDRNN_DEVICE void for_elements(int64_t rows, int64_t columns, const Body& body) {
  const int64_t wide = (columns + device::threads() - 1) / device::threads();
  for (int64_t i = device::block_x(); i < rows * wide; i += device::blocks_x()) {
    const int64_t row = quotient(i, wide);
    const int64_t column = (i - row * wide) * device::threads() + device::thread();
    if (column < columns) body(row, column);
  }
}

inline device::LaunchShape shape_of_elements(int64_t rows, int64_t columns, const char* name) {
  constexpr int64_t kLargestGrid = int64_t{1} << 30;
  device::LaunchShape shape;
  const int64_t threads = (columns + device::kWarp - 1) / device::kWarp * device::kWarp;
  shape.block = static_cast<int>(std::min<int64_t>(threads, kElementBlock));
  const int64_t blocks = rows * ((columns + shape.block - 1) / shape.block);
  shape.grid_x = static_cast<int>(std::clamp<int64_t>(blocks, 1, kLargestGrid));
  shape.name = name;
  return shape;
}

}  // namespace fusedrnn::cuda
