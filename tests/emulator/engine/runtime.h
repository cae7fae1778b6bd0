// The state behind the runtime's calls: one for the process, used under its lock.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "engine/fault.h"
#include "engine/memory.h"
#include "engine/queue.h"

namespace fusedrnn::emulator {

struct Runtime {
  std::recursive_mutex lock;
  Memory memory;
  Queue queue;
  int devices = 1;
  int driver = 0;       // its version: none, as CUDA says it
  int capability = 90;  // of all devices
  uint64_t seed = 0;
  int64_t launches = 0;
  std::map<std::string, int64_t> blocks;  // by kernel
  uint64_t orders_drawn = 0;              // since the seed was set
  Fault sticky{cudaSuccess, ""};          // of work that failed: nothing runs after it

  Runtime();
  void set_seed(uint64_t value);
  // Waits for what `run` runs; an error of queued work becomes sticky.
  template <class Run>
  void drive(const Run& run) {
    try {
      run();
    } catch (const Fault& fault) {
      if (sticky.code == cudaSuccess) sticky = fault;
      queue.discard();
      memory.abandon_ending();
      throw;
    }
  }
};

Runtime& runtime();
int current_device();
void set_current_device(int device);
void set_last_error(const Fault& fault);

// While it lives, calls of the runtime fail: the thread is in a function that the runtime called.
class NothingOfCuda {
 public:
  NothingOfCuda() { ++depth; }
  ~NothingOfCuda() { --depth; }
  NothingOfCuda(const NothingOfCuda&) = delete;
  NothingOfCuda& operator=(const NothingOfCuda&) = delete;
  static inline thread_local int depth = 0;
};

// The frame of every call of the runtime.
template <class Body>
cudaError_t call(const Body& body) noexcept {
  Runtime& r = runtime();
  const std::lock_guard<std::recursive_mutex> guard(r.lock);
  try {
    if (NothingOfCuda::depth != 0) throw Fault{cudaErrorNotPermitted, ""};
    if (r.sticky.code != cudaSuccess) throw Fault(r.sticky);
    body(r);
    return cudaSuccess;
  } catch (const Fault& fault) {
    set_last_error(fault);
    return fault.code;
  } catch (const std::bad_alloc&) {
    set_last_error({cudaErrorMemoryAllocation, ""});
    return cudaErrorMemoryAllocation;
  }
}

inline void require(bool condition, cudaError_t code, const char* text) {
  if (!condition) throw Fault{code, text};
}

}  // namespace fusedrnn::emulator
