// What each call allocates, and its launches, directly or as a graph.
#include "cuda/general/general.h"

#include "cuda/gemm/gemm.h"
#include "cuda/general/forward.h"
#include "cuda/general/weight_gradients.h"
#include "cuda/masks.h"
#include "cuda/runtime/memory.h"

namespace fusedrnn::cuda {
namespace {

// Graphs are kept for what the library launches itself; the caller's capture takes the launches.
void run(const Place& place, const GraphKey& key, int64_t launches, const GraphCache::Work& work) {
  if (place.capturing()) {
    work(place.stream());
  } else {
    place.device().graphs().run(key, launches, place.stream(), work);
  }
}

void add_call(const BackwardCall& call, GraphKey& key) {
  add_problem(call.problem, key);
  key.add(call.x);
  key.add(call.parameters);
  key.add(call.reserve);
  key.add(call.dy);
  key.add(call.dstate_n);
  key.add(call.dx);
  key.add(call.accumulate_dx);
  key.add(call.dparameters);
  key.add(call.dstate_0);
}

}  // namespace

size_t general_reserve_bytes(const Problem& problem) {
  const Run run(problem);
  Layout layout;
  States(run, true, problem.T, layout);
  return layout.total();
}

// Masks travel as values of launches, which are no part of a graph: its key need not have them.
// Their memory lies behind all that the graph uses, whose place must not depend on where masks come
// from.
void general_forward(const ForwardCall& call, const CudaMasks& masks, const Place& place) {
  const Run numbers(call.problem);
  const bool save = call.reserve != nullptr;
  const int64_t chunk_steps = GeneralForward::chunk_steps(numbers, save);
  Gemm& gemm = gemm_of_device(place.device().ordinal());
  Masks flags(masks, call.problem);
  Layout reserve, scratch;
  States states(numbers, save, chunk_steps, save ? reserve : scratch);
  GeneralForward forward(call, states, chunk_steps, gemm, scratch);
  flags.reserve(scratch);
  const CallMemory memory(place, scratch.total());
  states.use(save ? call.reserve : memory.data(), flags.any());
  forward.use(memory.data());
  if (flags.any()) flags.make_flags(memory.data(), states.flags(), place.stream());
  GraphKey key;
  forward.describe(key);
  run(place, key, forward.launches(), [&](cudaStream_t stream) { forward.launch(stream); });
}

void general_backward(const BackwardCall& call, const CudaMasks& masks, const Place& place) {
  const Problem& p = call.problem;
  const Run numbers(p);
  const bool padded = masks.lengths != nullptr;
  Gemm& gemm = gemm_of_device(place.device().ordinal());
  Layout reserve, scratch;
  States states(numbers, true, p.T, reserve);
  // It is read alone.
  states.use(const_cast<void*>(call.reserve), padded || masks.resets != nullptr);
  BackwardWalk walk(call, states, scratch);
  WeightGradients gradients(call, states, padded, scratch);
  const size_t workspace = scratch.reserve({static_cast<int64_t>(gemm.workspace_bytes())}, 1);
  const CallMemory memory(place, scratch.total());
  walk.use(memory.data());
  gradients.use(memory.data());

  GraphKey key;
  key.add('b');
  add_call(call, key);
  key.add(memory.data());
  key.add(padded);
  key.add(states.flags());
  const int64_t launches = 2 * p.T * numbers.stages();
  // Of float16, gradients are float32 and the rest as exact as tfloat32.
  const bool tfloat32 = p.compute == Compute::tfloat32 || p.dtype == Dtype::float16;
  run(place, key, launches, [&](cudaStream_t stream) {
    const Products products(gemm, numbers.unit.delta, tfloat32, memory.data() + workspace, stream);
    walk.launch(products, stream);
    gradients.launch(walk.deltas(), products, stream);
  });
}

}  // namespace fusedrnn::cuda
