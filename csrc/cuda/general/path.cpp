// The general path: what each call allocates, and its launches, directly or as a graph.
#include "cuda/path.h"

#include "cuda/gemm/gemm.h"
#include "cuda/general/forward.h"
#include "cuda/general/weight_gradients.h"
#include "cuda/masks.h"
#include "cuda/runtime/memory.h"

namespace fusedrnn::cuda {
namespace {

// Memory of a tape holds the states, and the flags behind them.
class GeneralTape final : public CudaTape {
 public:
  GeneralTape(const Place& place, const States& states, const Masks& masks, size_t flags,
              const Layout& layout)
      : memory_(place, layout.total()), states_(states), padded_(masks.has_lengths()) {
    states_.use(memory_.data());
    if (masks.any()) flags_ = reinterpret_cast<uint8_t*>(memory_.data() + flags);
  }

  const States& states() const { return states_; }
  uint8_t* flags() const { return flags_; }
  KeptMemory& memory() const { return memory_; }
  void backward(const BackwardCall& call, const Place& place) const override;

 private:
  mutable KeptMemory memory_;  // who used it changes, what it holds does not
  States states_;
  uint8_t* flags_ = nullptr;
  bool padded_;
};

// Graphs are kept for what the library launches itself; the caller's capture takes the launches.
void run(const Place& place, const GraphKey& key, int64_t launches, const GraphCache::Work& work) {
  if (place.capturing()) {
    work(place.stream());
  } else {
    place.device().graphs().run(key, launches, place.stream(), work);
  }
}

size_t reserve_flags(const Masks& masks, const Problem& p, Layout& layout) {
  return masks.any() ? layout.reserve({p.T, p.B}, 1) : layout.total();
}

// Masks travel as values of launches, which are no part of a graph: its key need not have them.
// Their memory lies behind all that the graph uses, whose place must not depend on where masks come
// from.
void launch_forward(GeneralForward& forward, const Masks& masks, char* memory, uint8_t* flags,
                    const Place& place) {
  if (masks.any()) masks.make_flags(memory, flags, place.stream());
  forward.use(memory, flags);
  GraphKey key;
  forward.describe(key);
  run(place, key, forward.launches(), [&](cudaStream_t stream) { forward.launch(stream); });
}

void train(const ForwardCall& call, const Masks& given_masks, const Place& place,
           std::unique_ptr<CudaTape>* tape) {
  Masks masks = given_masks;
  const Problem& p = call.problem;
  Gemm& gemm = gemm_of_device(place.device().ordinal());
  Layout kept, scratch;
  const States states(p, unit_of(p), true, p.T, kept);
  const size_t flags = reserve_flags(masks, p, kept);
  auto result = std::make_unique<GeneralTape>(place, states, masks, flags, kept);
  GeneralForward forward(call, result->states(), p.T, gemm, scratch);
  masks.reserve(scratch);
  const CallMemory memory(place, scratch.total());
  launch_forward(forward, masks, memory.data(), result->flags(), place);
  result->memory().leave(place);
  *tape = std::move(result);
}

void infer(const ForwardCall& call, const Masks& given_masks, const Place& place) {
  Masks masks = given_masks;
  const Problem& p = call.problem;
  const Unit& unit = unit_of(p);
  Gemm& gemm = gemm_of_device(place.device().ordinal());
  const int64_t chunk_steps = GeneralForward::chunk_steps(p, unit, false);
  Layout layout;
  States states(p, unit, false, chunk_steps, layout);
  const size_t flags = reserve_flags(masks, p, layout);
  GeneralForward forward(call, states, chunk_steps, gemm, layout);
  masks.reserve(layout);
  const CallMemory memory(place, layout.total());
  states.use(memory.data());
  auto* const flags_at = masks.any() ? reinterpret_cast<uint8_t*>(memory.data() + flags) : nullptr;
  launch_forward(forward, masks, memory.data(), flags_at, place);
}

void add_call(const BackwardCall& call, GraphKey& key) {
  add_problem(call.problem, key);
  key.add(call.x);
  key.add(call.dy);
  key.add(call.dx);
  key.add(call.accumulate_dx);
  key.add(call.db_ih);
  key.add(call.db_hh);
  for (const Matrix& m : {call.w_ih, call.w_hh, call.dstate_n[0], call.dstate_n[1], call.dw_ih,
                          call.dw_hh, call.dstate_0[0], call.dstate_0[1]}) {
    key.add(m);
  }
}

void GeneralTape::backward(const BackwardCall& call, const Place& place) const {
  const Problem& p = call.problem;
  const Unit& unit = states_.unit();
  Gemm& gemm = gemm_of_device(place.device().ordinal());
  Layout layout;
  BackwardWalk walk(call, states_, flags_, layout);
  WeightGradients gradients(call, states_, flags_, padded_, layout);
  const size_t workspace = layout.reserve({static_cast<int64_t>(gemm.workspace_bytes())}, 1);
  const CallMemory memory(place, layout.total());
  walk.use(memory.data());
  gradients.use(memory.data());

  GraphKey key;
  key.add('b');
  add_call(call, key);
  key.add(memory.data());
  key.add(memory_.data());
  key.add(padded_);
  key.add(flags_);
  const int64_t launches = 2 * p.T * states_.cell().phases;
  // Of float16, gradients are float32 and the rest as exact as tfloat32.
  const bool tfloat32 = p.compute == Compute::tfloat32 || p.dtype == Dtype::float16;
  memory_.enter(place);
  run(place, key, launches, [&](cudaStream_t stream) {
    const Products products(gemm, unit.delta, tfloat32, memory.data() + workspace, stream);
    walk.launch(products, stream);
    gradients.launch(walk.deltas(), products, stream);
  });
  memory_.leave(place);
}

bool takes(const Problem&, const Place&) { return true; }

void forward(const ForwardCall& call, const CudaMasks& masks, const Place& place,
             std::unique_ptr<CudaTape>* tape) {
  const Masks flags(masks, call.problem);
  if (tape != nullptr) {
    train(call, flags, place, tape);
  } else {
    infer(call, flags, place);
  }
}

}  // namespace

const Path kGeneralPath = {"general", takes, forward};

}  // namespace fusedrnn::cuda
