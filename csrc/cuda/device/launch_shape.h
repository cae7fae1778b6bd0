// How many threads a launch starts, and with what.
#pragma once

#include <cstddef>

namespace fusedrnn::cuda::device {

struct LaunchShape {
  int grid_x = 1, grid_y = 1, grid_z = 1;  // blocks
  int block = 128;                         // threads of a block
  size_t shared_bytes = 0;                 // of a block
  int cluster = 1;           // neighbours along x that share a cluster; divides grid_x
  bool cooperative = false;  // all blocks run at once, or the launch fails
  const char* name = "";     // of the kernel, for messages
};

}  // namespace fusedrnn::cuda::device
