// The C ABI's opaque tape, as core and the bindings see it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/backend.h"
#include "core/problem.h"
#include "fusedrnn/fusedrnn.h"

struct fusedrnn_tape {
  fusedrnn::ForwardCall
      call;  // problem, x, w_ih and w_hh (the caller's memory); nothing else is set
  std::vector<uint8_t> flags;
  std::unique_ptr<fusedrnn::BackendTape> backend;  // null where T = 0 or B = 0
};
