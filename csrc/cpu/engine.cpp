// The CPU backend: plans a call, lays out its memory, and runs the kernels of the instruction set
// in use on a team of threads. Knows no cell by name: all it needs is a CellShape.
#include "cpu/engine.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <vector>

#include "core/backend.h"
#include "core/error.h"
#include "core/memory.h"
#include "cpu/fp_mode.h"
#include "cpu/isa/units.h"
#include "cpu/plan.h"
#include "cpu/threads/pool.h"

namespace fusedrnn::cpu {

void wait_at(Barrier& barrier) { barrier.wait(); }

namespace {

// Rows of the weight gradients' products that are summed before they are added to the total: part
// of the result's definition, so the same for any number of threads.
constexpr int64_t kBlockRows = 256;
constexpr int64_t kBlockColumns = 512;

// Added to the stride of rows that are read side by side: powers of two would share cache sets.
constexpr int64_t kRowPadding = 16;
constexpr int64_t kRowUnit = 32;  // at least two vectors of any instruction set

struct CpuTape final : BackendTape {
  Isa isa;
  Block memory;
  void* inputs[kMaxPhases] = {};
  void* states[kMaxStates] = {};
  void* saved = nullptr;
};

const CellKernels& kernels_for(Isa isa, const Problem& p) {
  return unit_of(isa, p.dtype).cells[p.cell];
}

size_t item_bytes(const Problem& p) { return p.dtype == Dtype::float32 ? 4 : 8; }

size_t count(int64_t a, int64_t b = 1, int64_t c = 1) {
  int64_t n = 0;
  if (__builtin_mul_overflow(a, b, &n) || __builtin_mul_overflow(n, c, &n)) throw std::bad_alloc();
  return static_cast<size_t>(n);
}

int64_t state_stride(const Problem& p) { return divide_up(p.H, kRowUnit) * kRowUnit + kRowPadding; }

int64_t delta_stride(const CellShape& shape, const Problem& p) {
  return divide_up(shape.deltas * p.H, kRowUnit) * kRowUnit + kRowPadding;
}

// The threads of one call and the barriers they meet at.
class Crew {
 public:
  using Planner = Plan (*)(const CellShape&, const Problem&, int threads);

  Crew(Planner planner, const CellShape& shape, const Problem& p)
      : plan_(planner(shape, p, get_num_threads())), team_(plan_.threads()) {
    // Another call may hold the pool: then fewer threads run, and the plan is theirs.
    if (team_.size() < plan_.threads()) plan_ = planner(shape, p, team_.size());
    barriers_.emplace_back(plan_.threads());
    for (int i = 0; i < plan_.row_groups; ++i) {
      group_.push_back(&barriers_.emplace_back(plan_.unit_groups));
    }
  }

  const Plan& plan() const { return plan_; }

  Grid grid() { return {plan_.row_groups, plan_.unit_groups, &barriers_.front(), group_.data()}; }

  template <class Job>
  void run(void (*kernel)(const Job&, int), const Job& job) {
    struct Context {
      void (*kernel)(const Job&, int);
      const Job& job;
      int threads;
    } context{kernel, job, plan_.threads()};
    team_.run(
        [](void* opaque, int thread) {
          const Context& c = *static_cast<const Context*>(opaque);
          if (thread >= c.threads) return;
          const FlushDenormals mode;
          c.kernel(c.job, thread);
        },
        &context);
  }

 private:
  Plan plan_;
  Team team_;
  std::deque<Barrier> barriers_;
  std::vector<Barrier*> group_;
};

// One pointer a thread into a piece of equal shares.
std::vector<void*> shares(void* piece, int threads, size_t bytes) {
  std::vector<void*> pointers;
  for (int i = 0; i < threads; ++i) {
    pointers.push_back(static_cast<char*>(piece) + static_cast<size_t>(i) * bytes);
  }
  return pointers;
}

class CpuBackend final : public Backend {
 public:
  void forward(const ForwardCall& call, std::unique_ptr<BackendTape>* tape) const override {
    const Problem& p = call.problem;
    const Isa isa = selected_isa();
    const CellKernels& kernels = kernels_for(isa, p);
    const CellShape& shape = kernels.shape;
    const size_t item = item_bytes(p);
    const bool save = tape != nullptr;
    Crew crew(plan_forward, shape, p);
    const Plan& plan = crew.plan();

    ForwardJob job{};
    job.call = &call;
    job.grid = crew.grid();
    job.save = save;
    job.panels = panels_of(shape, p.H);
    job.ld_state = state_stride(p);
    job.chunk_steps = plan.chunk_steps;

    // What a tape keeps; in inference two slots of states and what phases pass on within a step.
    const size_t row = count(p.B, job.ld_state);
    const size_t saved_row = count(p.B, job.panels * shape.saved, panel_units(shape));
    const int64_t slots = save ? p.T + 1 : 2;
    const int64_t steps = save ? p.T : 1;
    Arena kept;
    int inputs[kMaxPhases] = {}, states[kMaxStates] = {};
    for (int i = 0; i < shape.phases; ++i) {
      inputs[i] = kept.reserve(count(i == 0 ? slots : steps, static_cast<int64_t>(row)), item);
    }
    for (int i = 1; i < shape.states; ++i) {
      states[i] = kept.reserve(count(slots, static_cast<int64_t>(row)), item);
    }
    const bool gates = save || shape.phases > 1;
    const int saved = kept.reserve(gates ? count(steps, static_cast<int64_t>(saved_row)) : 0, item);
    kept.allocate();
    for (int i = 0; i < shape.phases; ++i) job.inputs[i] = kept.at(inputs[i]);
    for (int i = 1; i < shape.states; ++i) job.states[i] = kept.at(states[i]);
    job.saved = gates ? kept.at(saved) : nullptr;

    Arena scratch;
    const int64_t units = job.panels * panel_units(shape);
    const bool stream = p.T == 1;  // weights that serve one step are not worth a place in memory
    const int64_t packed_units = stream ? 0 : units;
    const int packed_input = scratch.reserve(count(packed_units, shape.gates, p.I), item);
    int packed_recurrent[kMaxPhases] = {};
    for (int i = 0; i < shape.phases; ++i) {
      packed_recurrent[i] = scratch.reserve(count(packed_units, shape.phase_gates[i], p.H), item);
    }
    const size_t stream_share =
        stream ? count(shape.stream_panels * panel_units(shape), shape.gates, std::max(p.I, p.H))
               : 0;
    const int streamed = scratch.reserve(stream_share * static_cast<size_t>(plan.threads()), item);
    const int bias_ih = scratch.reserve(count(units, shape.gates), item);
    const int bias_hh = scratch.reserve(count(units, shape.gates), item);
    const size_t share =
        count(divide_up(job.panels, plan.unit_groups) * shape.gates * panel_units(shape),
              divide_up(p.B, plan.row_groups), plan.chunk_steps);
    const int projection = scratch.reserve(share * static_cast<size_t>(plan.threads()), item);
    scratch.allocate();
    job.packed_input = scratch.at(packed_input);
    for (int i = 0; i < shape.phases; ++i)
      job.packed_recurrent[i] = scratch.at(packed_recurrent[i]);
    job.packed_bias_ih = scratch.at(bias_ih);
    job.packed_bias_hh = scratch.at(bias_hh);
    std::vector<void*> projections = shares(scratch.at(projection), plan.threads(), share * item);
    job.projection = projections.data();
    std::vector<void*> streams = shares(scratch.at(streamed), plan.threads(), stream_share * item);
    job.stream = stream ? streams.data() : nullptr;

    std::unique_ptr<CpuTape> result;
    if (save) result = std::make_unique<CpuTape>();

    crew.run(kernels.forward, job);

    if (!save) return;
    result->isa = isa;
    std::copy_n(job.inputs, kMaxPhases, result->inputs);
    std::copy_n(job.states, kMaxStates, result->states);
    result->saved = job.saved;
    result->memory = kept.release();
    *tape = std::move(result);
  }

  void backward(const BackendTape& opaque, const BackwardCall& call) const override {
    const CpuTape& tape = static_cast<const CpuTape&>(opaque);
    const Problem& p = call.problem;
    const CellKernels& kernels = kernels_for(tape.isa, p);
    const CellShape& shape = kernels.shape;
    const size_t item = item_bytes(p);
    Crew crew(plan_backward, shape, p);
    const int threads = crew.plan().threads();

    BackwardJob job{};
    job.call = &call;
    job.grid = crew.grid();
    job.panels = panels_of(shape, p.H);
    job.ld_state = state_stride(p);
    job.ld_delta = delta_stride(shape, p);
    std::copy_n(tape.inputs, kMaxPhases, job.inputs);
    std::copy_n(tape.states, kMaxStates, job.states);
    job.saved = tape.saved;
    job.block_rows = std::min(kBlockRows, p.T * p.B);
    const int64_t widest = std::max(p.I, p.H);
    const int64_t wide = int64_t{shape.wide_panel} * shape.width;
    job.block_columns = std::min(kBlockColumns, divide_up(widest, wide) * wide);

    Arena scratch;
    const int delta = scratch.reserve(count(p.T, p.B, job.ld_delta), item);
    int carry[kMaxStates] = {}, transposed[kMaxPhases] = {};
    for (int i = 0; i < shape.states; ++i)
      carry[i] = scratch.reserve(count(p.B, job.ld_state), item);
    const int64_t narrow = int64_t{shape.recurrent_panel} * shape.width;
    for (int i = 0; i < shape.phases; ++i) {
      transposed[i] =
          scratch.reserve(count(divide_up(p.H, narrow) * narrow, shape.phase_gates[i], p.H), item);
    }
    const bool wants_dx = call.dx.data != nullptr;
    const int input =
        scratch.reserve(wants_dx ? count(divide_up(p.I, wide) * wide, shape.gates, p.H) : 0, item);
    // The blocks of both operands; 8 rows are the highest tile.
    const size_t share =
        count(divide_up(job.block_rows, kRowUnit) * kRowUnit, job.block_columns + 8);
    const int blocks = scratch.reserve(share * static_cast<size_t>(threads), item);
    scratch.allocate();
    job.delta = scratch.at(delta);
    for (int i = 0; i < shape.states; ++i) job.carry[i] = scratch.at(carry[i]);
    for (int i = 0; i < shape.phases; ++i) job.packed_transposed[i] = scratch.at(transposed[i]);
    job.packed_input = scratch.at(input);
    std::vector<void*> pointers = shares(scratch.at(blocks), threads, share * item);
    job.scratch = pointers.data();

    crew.run(kernels.backward, job);
  }

  std::unique_ptr<FrozenWeights> freeze(const FreezeCall&) const override {
    throw Error(FUSEDRNN_UNAVAILABLE, "freeze: not there yet");
  }
  void forward(const FrozenWeights&, const ForwardCall&) const override {}
  size_t step_workspace(const FrozenWeights&, int64_t) const override { return 0; }
  void step(const FrozenWeights&, const StepCall&, void*) const noexcept override {}
};

// Not a static inside a function, which is a lock that a fork can copy while it is held.
constinit const CpuBackend kBackend;

}  // namespace

void evaluate_activation(Dtype dtype, int which, const void* in, void* out, int64_t n) {
  const FlushDenormals mode;
  unit_of(selected_isa(), dtype).activation(which, in, out, n);
}

}  // namespace fusedrnn::cpu

namespace fusedrnn {

const Backend& cpu_backend() { return cpu::kBackend; }

}  // namespace fusedrnn
