// The emulator's cuda/device/launch.h.
#pragma once

#include <cuda_runtime.h>

#include <string>
#include <tuple>
#include <utility>

#include "cuda/device/check.h"
#include "cuda/device/launch_shape.h"
#include "engine/launch.h"

namespace fusedrnn::cuda::device {

template <class... P, class... A>
void launch(void (*kernel)(P...), const LaunchShape& shape, cudaStream_t stream, A&&... args) {
  static_assert(sizeof...(P) == sizeof...(A), "an argument for each parameter");
  std::tuple<P...> parameters(std::forward<A>(args)...);
  check(emulator::launch(
            {shape, shape.name, [kernel, parameters] { std::apply(kernel, parameters); }}, stream),
        std::string("launch of ") + shape.name);
}

// As many as its multiprocessors have room for, a block each.
template <class... P>
int active_clusters(void (*)(P...), const LaunchShape& shape) {
  int device = 0, multiprocessors = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device),
        "multiprocessors");
  return multiprocessors / shape.cluster;
}

}  // namespace fusedrnn::cuda::device
