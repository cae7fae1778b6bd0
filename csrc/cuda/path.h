// The ways to compute a problem. Today there is one, the general path, which takes every problem
// that has steps and sequences; paths that keep the weights on the chip will stand before it.
#pragma once

#include <memory>

#include "core/cuda_plugin.h"
#include "cuda/runtime/place.h"

namespace fusedrnn {

// What a forward call left for its gradients, in the way of its path. Immutable: any number of
// threads may run backward with it at the same time.
struct CudaTape {
  virtual ~CudaTape() = default;
  virtual void backward(const BackwardCall& call, const cuda::Place& place) const = 0;
};

namespace cuda {

struct Path {
  const char* name;
  bool (*takes)(const Problem& problem, const Place& place);
  // With `tape` not null, *tape receives what backward needs.
  void (*forward)(const ForwardCall& call, const CudaMasks& masks, const Place& place,
                  std::unique_ptr<CudaTape>* tape);
};

extern const Path kEmptyPath;  // without steps or without sequences
extern const Path kGeneralPath;

// The first that takes the problem.
const Path& path_of(const Problem& problem, const Place& place);

}  // namespace cuda
}  // namespace fusedrnn
