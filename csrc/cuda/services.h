// What core asks of a device beside passes: memory for results, order between streams, numbers on
// the host, and where an address lies.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "cuda/runtime/place.h"

namespace fusedrnn::cuda {

// From the library's pool on the device, for use on `stream`; released in the order of a stream.
void* allocate_result(int32_t device, size_t bytes, cudaStream_t stream);
void release_result(int32_t device, void* memory, cudaStream_t stream) noexcept;

// What is put on `later` from now on waits for what is on `earlier` now.
void order_streams(int32_t device, cudaStream_t earlier, cudaStream_t later);

// Waits for the work on the place's stream.
void read(const void* memory, size_t bytes, void* to, const Place& place);

// -1 for memory of the host.
int32_t device_of_address(const void* memory);

}  // namespace fusedrnn::cuda
