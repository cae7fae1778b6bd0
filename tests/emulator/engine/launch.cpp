#include "engine/launch.h"

#include <algorithm>
#include <memory>

#include "engine/runtime.h"
#include "engine/stream.h"

namespace fusedrnn::emulator {
namespace {

void check_shape(const cuda::device::LaunchShape& shape) {
  constexpr int kRows = 65535;  // along y and z
  const bool grid = shape.grid_x > 0 && shape.grid_y > 0 && shape.grid_y <= kRows &&
                    shape.grid_z > 0 && shape.grid_z <= kRows;
  require(grid, cudaErrorInvalidConfiguration, "a grid without blocks, or with too many");
  require(shape.block > 0 && shape.block <= kThreadsOfBlock, cudaErrorInvalidConfiguration,
          "a block of no thread, or of more than 1024");
  require(shape.shared_bytes <= kSharedOfBlock, cudaErrorInvalidValue,
          "more shared memory than a block can have");
  require(
      shape.cluster > 0 && shape.cluster <= kLargestCluster && shape.grid_x % shape.cluster == 0,
      cudaErrorInvalidConfiguration, "a cluster that does not divide the grid, or is too large");
  if (shape.cooperative) {
    const int64_t blocks = int64_t{shape.grid_x} * shape.grid_y * shape.grid_z;
    const int64_t room =
        int64_t{resident_blocks(shape.block, shape.shared_bytes)} * kMultiprocessors;
    require(blocks <= room, cudaErrorCooperativeLaunchTooLarge, "");
  }
}

void run(const Kernel& kernel) {
  Runtime& r = runtime();
  ++r.launches;
  r.blocks[kernel.name] += int64_t{kernel.shape.grid_x} * kernel.shape.grid_y * kernel.shape.grid_z;
  const uint64_t seed = r.seed == 0 ? 0 : r.seed + ++r.orders_drawn;
  const std::string error = KernelRun(kernel, seed).execute();
  if (!error.empty()) throw Fault{cudaErrorLaunchFailure, error};
  try {
    r.memory.check_guards();
  } catch (Fault& fault) {
    fault.text = "kernel " + kernel.name + ": " + fault.text;
    throw;
  }
}

}  // namespace

int resident_blocks(int block, size_t shared_bytes) {
  const int by_threads = kThreadsOfMultiprocessor / std::max(block, kWarpThreads);
  const auto by_shared =
      static_cast<int>(kSharedOfMultiprocessor / (shared_bytes + kSharedReserved));
  return std::min({by_threads, by_shared, kBlocksOfMultiprocessor});
}

cudaError_t launch(Kernel kernel, cudaStream_t handle) {
  return call([&](Runtime&) {
    check_shape(kernel.shape);
    CUstream_st& stream = stream_of(handle);
    require(stream.device == current_device(), cudaErrorInvalidResourceHandle,
            "a launch on a stream of another device than the current one");
    auto shared = std::make_shared<Kernel>(std::move(kernel));
    shared->shape.name = shared->name.c_str();
    submit(stream, [shared] { run(*shared); });
  });
}

}  // namespace fusedrnn::emulator
