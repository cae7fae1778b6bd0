// The C ABI's opaque tape, as core and the bindings see it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/backend.h"
#include "core/problem.h"
#include "fusedrnn/fusedrnn.h"

struct fusedrnn_tape {
  fusedrnn::ForwardCall
      call;  // problem, x, w_ih and w_hh (the caller's memory); nothing else is set
  DLDevice device{kDLCPU, 0};                      // of x
  std::vector<uint8_t> flags;                      // on the CPU
  std::optional<fusedrnn_allocator> allocator;     // on a CUDA device
  std::unique_ptr<fusedrnn::BackendTape> backend;  // null on the CPU where T = 0 or B = 0
};
