// What each call allocates, and its launches, directly or as a graph.
#include "cuda/general/general.h"

#include <algorithm>
#include <bit>
#include <optional>

#include "cuda/gemm/gemm.h"
#include "cuda/general/forward.h"
#include "cuda/general/gates_again.h"
#include "cuda/general/weight_gradients.h"
#include "cuda/kernels/copy.h"
#include "cuda/masks.h"
#include "cuda/runtime/memory.h"

namespace fusedrnn::cuda {
namespace {

// All that the launches of a pass depend on beside the arrays of its call. With an order they are
// as long as what lives: a graph belongs to the ends, whichever sequences they are of.
GraphKey key_of(char pass, const States& states, const char* scratch) {
  const Problem& p = states.run().problem;
  GraphKey key;
  key.add(pass);
  for (const int64_t number :
       {int64_t{p.cell}, static_cast<int64_t>(p.dtype), static_cast<int64_t>(p.compute),
        int64_t{p.reverse}, int64_t{p.lean}, p.T, p.B, p.I, p.H, p.P, p.heads}) {
    key.add(number);
  }
  for (int i = 0; i < p.num_constants; ++i) key.add(std::bit_cast<uint64_t>(p.constants[i]));
  add_noise(p.noise, key);
  states.order().add_to(key);
  key.add(states.memory());
  key.add(states.flags());
  key.add(scratch);
  return key;
}

// The steps that live of the chunk that begins at a time.
Chunk chunk_at(const Problem& p, const Order& order, int64_t time, int64_t chunk_steps) {
  const int64_t steps = std::clamp<int64_t>(order.end() - time, 0, chunk_steps);
  const bool is_earliest = time == 0, is_latest = time + steps == order.end();
  return {time, steps, p.reverse ? is_earliest : is_latest, p.reverse ? is_latest : is_earliest};
}

size_t reserve_workspace(const Gemm& gemm, Layout& layout) {
  return layout.reserve({static_cast<int64_t>(gemm.workspace_bytes())}, 1);
}

// Graphs are kept for what the library launches itself; the caller's capture takes the launches.
void launch(const Run& run, const GraphKey& key, const Place& place, const GraphCache::Work& work) {
  if (place.capturing()) return work(place.stream());
  const int64_t launches = 2 * run.problem.T * run.stages();
  place.device().graphs().run(key, launches, place.stream(), work);
}

}  // namespace

size_t general_reserve_bytes(const Problem& problem) {
  const Run run(problem);
  const Order order(problem);
  Layout reserve, own;
  if (problem.lean) {
    States(run, States::states, 1, order, reserve, own);
  } else {
    States(run, States::all, problem.T, order, reserve, reserve);
  }
  return reserve.total();
}

void general_gates(const GatesCall& call, bool masked, const Place& place) {
  const Run run(call.problem);
  const Order order(call.problem);  // what the forward call's was stands in the reserve
  Layout layout;
  States states(run, States::all, call.problem.T, order, layout, layout);
  void* const memory = const_cast<void*>(call.reserve);  // only read
  states.use(memory, memory, masked);
  Copy copy;
  copy.T = call.problem.T;
  copy.B = call.problem.B;
  copy.n = call.count * call.problem.H;
  copy.from = dense_sequence(states.gates(0), copy.B, states.ld_gates());
  copy.from_rows = Rows::packed;
  copy.to = call.gates;
  copy.to_rows = Rows::numbers;
  copy.order = states.order_memory();
  copy.flags = states.flags();
  copy.mask = copy.wanted = kValid;
  copy_rows(copy, run.types.real, run.types.edge, place.stream());
}

void general_forward(const ForwardCall& call, const CudaMasks& given_masks, const Place& place) {
  const Run run(call.problem);
  const bool save = call.reserve != nullptr;
  const bool keeps_gates = save && !call.problem.lean;
  const int64_t kept_steps = keeps_gates ? call.problem.T : GeneralForward::chunk_steps(run);
  const Order order(call.problem, given_masks.lengths);
  Gemm& gemm = gemm_of_device(place.device().ordinal());
  Layout reserve, scratch;
  const auto kept = keeps_gates ? States::all : save ? States::states : States::none;
  States states(run, kept, kept_steps, order, save ? reserve : scratch,
                keeps_gates ? reserve : scratch);
  NoiseMasks noise(run, scratch);
  GeneralForward forward(call, states, noise, given_masks.shows_padding, scratch);
  const size_t workspace = reserve_workspace(gemm, scratch);
  // Behind all that a graph uses, whose place must not depend on where masks come from.
  Masks masks(given_masks, call.problem, order);
  masks.reserve(scratch);
  const CallMemory memory(place, scratch.total());
  states.use(save ? call.reserve : memory.data(), keeps_gates ? call.reserve : memory.data(),
             masks.any());
  forward.use(memory.data());
  noise.draw(memory.data(), place.stream());

  // They travel as values of launches, which are no part of a graph: its key need not have them.
  if (masks.any()) {
    masks.make_flags(memory.data(), states.flags(), states.order_memory(), place.stream());
  }
  GraphKey key = key_of('f', states, memory.data());
  key.add(order.any() && given_masks.shows_padding);
  key.add(call.x);
  key.add(call.parameters);
  key.add(call.state_0);
  key.add(call.y);
  key.add(call.state_n);
  key.add(call.reset_state);
  key.add(call.state_y);
  const bool tfloat32 = call.problem.compute == Compute::tfloat32;
  launch(run, key, place, [&](cudaStream_t stream) {
    forward.launch({gemm, run.types.row, tfloat32, memory.data() + workspace, stream});
  });
}

void general_backward(const BackwardCall& call, const CudaMasks& masks, const Place& place) {
  const Problem& p = call.problem;
  const Run run(p);
  const bool padded = masks.lengths != nullptr || masks.mask != nullptr;
  const Order order(p, masks.lengths);
  Gemm& gemm = gemm_of_device(place.device().ordinal());
  Layout reserve, scratch;
  const int64_t chunk_steps = GatesAgain::chunk_steps(run);
  States states(run, p.lean ? States::chunk : States::all, chunk_steps, order, reserve,
                p.lean ? scratch : reserve);
  NoiseMasks noise(run, scratch);
  std::optional<GatesAgain> again;
  if (p.lean) again.emplace(call, states, noise, chunk_steps, scratch);
  BackwardWalk walk(call, states, noise, chunk_steps, scratch);
  WeightGradients gradients(call, states, chunk_steps, padded, scratch);
  const size_t workspace = reserve_workspace(gemm, scratch);
  const CallMemory memory(place, scratch.total());
  void* const kept = const_cast<void*>(call.reserve);  // only read
  states.use(kept, p.lean ? memory.data() : kept, masks.any());
  if (again) again->use(memory.data());
  walk.use(memory.data());
  gradients.use(memory.data());
  noise.draw(memory.data(), place.stream());

  GraphKey key = key_of('b', states, memory.data());
  key.add(padded);
  key.add(call.x);
  key.add(call.parameters);
  key.add(call.dy);
  key.add(call.dstate_n);
  key.add(call.dx);
  key.add(call.accumulate_dx);
  key.add(call.dparameters);
  key.add(call.dstate_0);
  key.add(call.dstate_y);
  key.add(call.dreset_state);
  key.add(call.flow);
  key.add(std::bit_cast<uint64_t>(call.clip_dh));
  // Of float16, gradients are float32 and the rest as exact as tfloat32.
  const bool tfloat32 = p.compute == Compute::tfloat32 || p.dtype == Dtype::float16;
  launch(run, key, place, [&](cudaStream_t stream) {
    const Products products{gemm, run.types.delta, tfloat32, memory.data() + workspace, stream};
    const Products forward{gemm, run.types.row, p.compute == Compute::tfloat32,
                           memory.data() + workspace, stream};
    if (again) again->begin(forward);
    walk.begin(products);
    const void* following = nullptr;
    const int64_t times = walk.times();
    for (int64_t walked = 0; walked < times;) {
      const int64_t time = p.reverse ? walked : times - 1 - walked;
      const Chunk chunk = chunk_at(p, order, time - time % chunk_steps, chunk_steps);
      const int64_t steps = std::min(chunk_steps, times - chunk.time);
      if (again) states.enter_chunk(chunk.time);
      if (again && chunk.steps > 0) again->run(forward, chunk.time, chunk.steps);
      following = walk.walk(products, states.slots().time(time), steps, following);
      walked += steps;
      if (walked == times) walk.end(products);
      if (chunk.steps > 0) gradients.add(walk.deltas(chunk.steps), chunk, products);
    }
  });
}

}  // namespace fusedrnn::cuda
