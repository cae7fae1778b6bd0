// What core asks of the CUDA library, which it opens at run time: plain structs and functions only,
// because the two may come from different packages and compilers.
//
// The library exports one symbol, kCudaPluginSymbol, of type CudaPluginEntry.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/problem.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

// Grows by one with every change of a struct here or in problem.h, or of the list of cells. Core
// refuses a library of another version.
constexpr int32_t kCudaPluginVersion = 11;
constexpr const char* kCudaPluginSymbol = "fusedrnn_cuda_plugin";

// Where a call runs. Work is ordered on `stream` and nothing waits for the device.
struct CudaPlace {
  int32_t device = 0;
  void* stream = nullptr;                         // a cudaStream_t; null: the legacy default stream
  const fusedrnn_allocator* allocator = nullptr;  // null: the library's own pool
};

// What ForwardCall::flags is made from, on the device: `flags` of a call is null here. A tensor may
// lie in device memory, where the values of lengths are not checked but limited to 0..T, or in host
// memory, which has been checked, and which is read before the call returns. Any strides.
struct CudaMasks {
  const DLTensor* lengths = nullptr;
  const DLTensor* mask = nullptr;
  const DLTensor* resets = nullptr;
  bool shows_padding = false;

  bool any() const { return lengths != nullptr || mask != nullptr || resets != nullptr; }
};

// Memory that outlives calls and may be used on any stream: released behind the work of all calls
// that used it.
struct CudaKept;

struct CudaDevice {
  char name[256];
  int32_t capability;  // 90 for 9.0
  int64_t memory;      // bytes
  char unusable[256];  // why it cannot be used; empty where it can
};

struct CudaPlugin {
  int32_t version;
  // Devices, or the reason why there is none: a null-terminated text in `why`, and 0.
  int32_t (*device_count)(char* why, size_t size);
  fusedrnn_status (*describe_device)(int32_t device, CudaDevice* description);
  // Bytes that forward leaves for backward, with room for masks; 0 for a problem without steps or
  // sequences.
  fusedrnn_status (*reserve_bytes)(const Problem* problem, size_t* bytes);
  // As the CPU engine's (cpu/engine.h), for problems without steps or sequences too: there the
  // states pass from state_0 to state_n, in backward from dstate_n to dstate_0, and the gradients
  // of parameters and reset states are zeros. A reserve lies in device memory, aligned to 256
  // bytes, and is used in the order of the streams.
  fusedrnn_status (*forward)(const ForwardCall* call, const CudaMasks* masks,
                             const CudaPlace* place);
  // `masks`: those of the forward call, of which nothing is looked at but whether they were given:
  // what they said stands in the reserve. Lengths in host memory are read again: with them the
  // reserve is packed (cuda/order.h).
  fusedrnn_status (*backward)(const BackwardCall* call, const CudaMasks* masks,
                              const CudaPlace* place);
  // Of a problem with steps and sequences. `masked`: whether there were masks, whose flags stand in
  // the reserve.
  fusedrnn_status (*gates)(const GatesCall* call, bool masked, const CudaPlace* place);
  // Of a row with steps and sequences, or a matrix, on the device.
  fusedrnn_status (*drop)(const DropCall* call, const CudaPlace* place);
  // The message of this thread's last failure.
  const char* (*last_error)();
  // A line about the library itself: CUDA runtime, driver, the GEMM in use.
  const char* (*description)();
  // Kept memory of the place's allocator, or of the library's own pool, for use on the place's
  // stream.
  fusedrnn_status (*keep)(size_t bytes, const CudaPlace* place, CudaKept** kept, void** memory);
  // Before and after a call's work on a stream: what comes in between sees what calls before wrote.
  fusedrnn_status (*enter)(CudaKept* kept, const CudaPlace* place);
  fusedrnn_status (*leave)(CudaKept* kept, const CudaPlace* place);
  void (*free_kept)(CudaKept* kept);
  // Memory of the library's own pool, for results and work of callers that have no allocator.
  fusedrnn_status (*allocate)(int32_t device, size_t bytes, void* stream, void** memory);
  void (*release)(int32_t device, void* memory, void* stream);  // after the work on `stream`
  // What is put on `later` from now on waits for what is on `earlier` now; no one else waits.
  fusedrnn_status (*order)(int32_t device, void* earlier, void* later);
  // Waits for the work on the place's stream and copies device memory to the host.
  fusedrnn_status (*read)(const void* memory, size_t bytes, void* to, const CudaPlace* place);
  // The device that memory lies on; -1 for the host's.
  fusedrnn_status (*device_of)(const void* memory, int32_t* device);
  // How many products of this process were cuBLASLt's to compute, as far as the environment asks,
  // and are the plain kernel's. Replays of a graph do not count again.
  int64_t (*plain_products)();
};

using CudaPluginEntry = const CudaPlugin* (*)();

}  // namespace fusedrnn
