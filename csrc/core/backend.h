// The seam between core and the engines: core knows cpu and cuda through this class alone, and they
// do not know each other.
#pragma once

#include <memory>

#include "core/problem.h"

namespace fusedrnn {

// What one backend keeps between a forward and its backward passes.
class BackendTape {
 public:
  virtual ~BackendTape() = default;
};

class Backend {
 public:
  virtual ~Backend() = default;

  // With `tape` not null, *tape receives what backward() needs; otherwise no gates are stored.
  // Throws before anything is written, or not at all.
  virtual void forward(const ForwardCall& call, std::unique_ptr<BackendTape>* tape) const = 0;
  virtual void backward(const BackendTape& tape, const BackwardCall& call) const = 0;
};

const Backend& cpu_backend();

}  // namespace fusedrnn
