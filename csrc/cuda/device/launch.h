// Starts a kernel on a stream.
#pragma once

#include <cuda_runtime.h>

#include <string>
#include <tuple>
#include <utility>

#include "cuda/device/check.h"
#include "cuda/device/launch_shape.h"

namespace fusedrnn::cuda::device {

constexpr size_t kSharedBytesWithoutAsking = 48 * 1024;
constexpr int kClusterWithoutAsking = 8;

namespace launch_detail {

inline void ask_for_more_than_usual(const void* kernel, const LaunchShape& shape) {
  if (shape.shared_bytes > kSharedBytesWithoutAsking) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shape.shared_bytes)),
          std::string("shared memory of ") + shape.name);
  }
  if (shape.cluster > kClusterWithoutAsking) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1),
          std::string("cluster of ") + shape.name);
  }
}

// The attributes beyond cudaLaunchConfig_t's own fields; returns how many.
inline unsigned fill_attributes(const LaunchShape& shape, cudaLaunchAttribute (&attributes)[2]) {
  unsigned count = 0;
  if (shape.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = static_cast<unsigned>(shape.cluster);
    attributes[count].val.clusterDim.y = 1;
    attributes[count].val.clusterDim.z = 1;
    ++count;
  }
  if (shape.cooperative) {
    attributes[count].id = cudaLaunchAttributeCooperative;
    attributes[count].val.cooperative = 1;
    ++count;
  }
  return count;
}

inline cudaLaunchConfig_t configuration(const LaunchShape& shape,
                                        cudaLaunchAttribute (&attributes)[2]) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(shape.grid_x), static_cast<unsigned>(shape.grid_y),
                        static_cast<unsigned>(shape.grid_z));
  config.blockDim = dim3(static_cast<unsigned>(shape.block));
  config.dynamicSmemBytes = shape.shared_bytes;
  config.attrs = attributes;
  config.numAttrs = fill_attributes(shape, attributes);
  return config;
}

}  // namespace launch_detail

// Arguments are converted to the kernel's parameters and copied before the call returns. Throws
// where the launch is refused.
template <class... P, class... A>
void launch(void (*kernel)(P...), const LaunchShape& shape, cudaStream_t stream, A&&... args) {
  static_assert(sizeof...(P) == sizeof...(A), "an argument for each parameter");
  std::tuple<P...> parameters(std::forward<A>(args)...);
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t config = launch_detail::configuration(shape, attributes);
  config.stream = stream;
  const void* const function = reinterpret_cast<const void*>(kernel);
  launch_detail::ask_for_more_than_usual(function, shape);
  std::apply(
      [&](auto&... parameter) {
        // One more than there are, since an array of none is not C++.
        void* addresses[sizeof...(P) + 1] = {
            const_cast<void*>(static_cast<const void*>(&parameter))...};
        check(cudaLaunchKernelExC(&config, function, addresses),
              std::string("launch of ") + shape.name);
      },
      parameters);
}

// How many clusters of that shape the device runs at once; 0 where it can run none. Needs sm_90.
template <class... P>
int active_clusters(void (*kernel)(P...), const LaunchShape& shape) {
  const void* const function = reinterpret_cast<const void*>(kernel);
  launch_detail::ask_for_more_than_usual(function, shape);
  cudaLaunchAttribute attributes[2] = {};
  const cudaLaunchConfig_t config = launch_detail::configuration(shape, attributes);
  int count = 0;
  if (cudaOccupancyMaxActiveClusters(&count, function, &config) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return count;
}

}  // namespace fusedrnn::cuda::device
