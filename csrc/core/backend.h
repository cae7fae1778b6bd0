// The seam between core and the engines: core knows cpu and cuda through this class alone, and they
// do not know each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/problem.h"

namespace fusedrnn {

// What one backend keeps between a forward and its backward passes.
class BackendTape {
 public:
  virtual ~BackendTape() = default;
};

// Weights as one backend packed them. Immutable: any number of threads may run with them.
class FrozenWeights {
 public:
  virtual ~FrozenWeights() = default;
};

class Backend {
 public:
  virtual ~Backend() = default;

  // With `tape` not null, *tape receives what backward() needs; otherwise no gates are stored.
  // Throws before anything is written, or not at all.
  virtual void forward(const ForwardCall& call, std::unique_ptr<BackendTape>* tape) const = 0;
  virtual void backward(const BackendTape& tape, const BackwardCall& call) const = 0;

  virtual std::unique_ptr<FrozenWeights> freeze(const FreezeCall& call) const = 0;
  // Inference with frozen weights, of the problem that they were frozen for; the call's own weights
  // and biases are not read.
  virtual void forward(const FrozenWeights& weights, const ForwardCall& call) const = 0;
  // One step on the calling thread: allocates nothing, takes no lock, cannot fail. `workspace`:
  // step_workspace(weights, B) bytes, aligned to 64, of one call at a time.
  virtual size_t step_workspace(const FrozenWeights& weights, int64_t B) const = 0;
  virtual void step(const FrozenWeights& weights, const StepCall& call,
                    void* workspace) const noexcept = 0;
};

const Backend& cpu_backend();

}  // namespace fusedrnn
