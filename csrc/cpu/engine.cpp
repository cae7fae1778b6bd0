// The CPU backend: plans a call, lays out its memory, and runs the kernels of the instruction set
// in use on a team of threads. Knows no cell by name: all it needs is a CellShape.
#include "cpu/engine.h"

#include <algorithm>
#include <atomic>
#include <memory>

#include "core/backend.h"
#include "core/memory.h"
#include "cpu/crew.h"
#include "cpu/fp_mode.h"
#include "cpu/isa/units.h"
#include "cpu/layout.h"
#include "cpu/plan.h"

namespace fusedrnn::cpu {

void wait_at(Barrier& barrier) noexcept { barrier.wait(); }

namespace {

// Rows of the weight gradients' products that are summed before they are added to the total: part
// of the result's definition, so the same for any number of threads.
constexpr int64_t kBlockRows = 256;
constexpr int64_t kBlockColumns = 512;

struct CpuTape final : BackendTape {
  Isa isa;
  Block memory;
  void* inputs[kMaxPhases] = {};
  void* states[kMaxStates] = {};
  void* saved = nullptr;
};

struct CpuFrozen final : FrozenWeights {
  Isa isa;
  Problem problem;
  Block memory;
  ForwardJob packed{};  // where the weights and biases lie
  mutable std::atomic<uint32_t> calls{0};
};

const CellKernels& kernels_for(Isa isa, const Problem& p) {
  return unit_of(isa, arithmetic_of(p)).cells[p.cell];
}

size_t size_of(int bytes) { return static_cast<size_t>(bytes); }

// A job of which the memory and the grid are not known yet.
ForwardJob blank_job(const ForwardCall& call, const CellShape& shape, const Plan& plan) {
  ForwardJob job{};
  job.call = &call;
  job.panels = panels_of(shape, call.problem.H);
  job.ld_state = row_stride(call.problem.H, shape.row_bytes);
  job.chunk_steps = plan.chunk_steps;
  return job;
}

void use_packed(const CpuFrozen& frozen, ForwardJob& job) {
  const ForwardJob& packed = frozen.packed;
  job.packed = true;
  job.turned = frozen.calls.fetch_add(1, std::memory_order_relaxed) % 2 != 0;
  job.packed_input = packed.packed_input;
  std::copy_n(packed.packed_recurrent, kMaxPhases, job.packed_recurrent);
  job.packed_bias_ih = packed.packed_bias_ih;
  job.packed_bias_hh = packed.packed_bias_hh;
  job.quantised_input = packed.quantised_input;
  job.quantised_recurrent = packed.quantised_recurrent;
}

// The layouts of one step by one thread.
struct StepLayout {
  StepLayout(Arena& arena, const CellShape& shape, const Problem& problem)
      : states(arena, shape, problem, false), scratch(arena, shape, problem, Plan{}, false) {}

  StatesLayout states;
  ScratchLayout scratch;
};

Problem one_step(const CpuFrozen& frozen, int64_t B) {
  Problem p = frozen.problem;
  p.T = 1;
  p.B = B;
  return p;
}

class CpuBackend final : public Backend {
 public:
  void forward(const ForwardCall& call, std::unique_ptr<BackendTape>* tape) const override {
    run_forward(call, selected_isa(), nullptr, tape);
  }

  void forward(const FrozenWeights& opaque, const ForwardCall& call) const override {
    const CpuFrozen& frozen = static_cast<const CpuFrozen&>(opaque);
    run_forward(call, frozen.isa, &frozen, nullptr);
  }

  std::unique_ptr<FrozenWeights> freeze(const FreezeCall& freeze) const override {
    auto frozen = std::make_unique<CpuFrozen>();
    frozen->isa = selected_isa();
    frozen->problem = freeze.problem;
    const Problem& p = freeze.problem;
    const CellKernels& kernels = kernels_for(frozen->isa, p);

    ForwardCall call;
    call.problem = one_step(*frozen, 1);
    call.w_ih = freeze.w_ih;
    call.w_hh = freeze.w_hh;
    call.b_ih = freeze.b_ih;
    call.b_hh = freeze.b_hh;
    ForwardJob job = blank_job(call, kernels.shape, Plan{});
    job.grid = {1, 1, nullptr, nullptr};
    Arena arena;
    const PackedLayout layout(arena, kernels.shape, p.I, p.H, true);
    arena.allocate();
    layout.point(arena, job);
    {
      const FlushDenormals mode;
      kernels.pack(job, 0);
    }
    frozen->packed = job;
    frozen->packed.call = nullptr;  // it ends here
    frozen->memory = arena.release();
    return frozen;
  }

  size_t step_workspace(const FrozenWeights& opaque, int64_t B) const override {
    const CpuFrozen& frozen = static_cast<const CpuFrozen&>(opaque);
    const Problem p = one_step(frozen, B);
    Arena arena;
    const StepLayout layout(arena, kernels_for(frozen.isa, p).shape, p);
    return arena.total();
  }

  void step(const FrozenWeights& opaque, const StepCall& step,
            void* workspace) const noexcept override {
    const CpuFrozen& frozen = static_cast<const CpuFrozen&>(opaque);
    ForwardCall call;
    const Problem& p = call.problem = one_step(frozen, step.B);
    const CellKernels& kernels = kernels_for(frozen.isa, p);
    call.x = {const_cast<void*>(step.x), 0, p.I};
    for (int s = 0; s < kernels.shape.states; ++s) {
      call.state_0[s] = {const_cast<void*>(step.prev[s]), p.H};
    }
    // The output is the new h; `next` may be `prev`, of which nothing is read after the first
    // write.
    call.y = {step.next[0], 0, p.H};
    for (int s = 1; s < kernels.shape.states; ++s) call.state_n[s] = {step.next[s], p.H};

    ForwardJob job = blank_job(call, kernels.shape, Plan{});
    job.grid = {1, 1, nullptr, nullptr};
    use_packed(frozen, job);
    Arena arena;
    const StepLayout layout(arena, kernels.shape, p);
    arena.use(workspace);
    layout.states.point(arena, job);
    layout.scratch.point(arena, job);
    const FlushDenormals mode;
    kernels.forward(job, 0);
  }

  void backward(const BackendTape& opaque, const BackwardCall& call) const override {
    const CpuTape& tape = static_cast<const CpuTape&>(opaque);
    const Problem& p = call.problem;
    const CellKernels& kernels = kernels_for(tape.isa, p);
    const CellShape& shape = kernels.shape;
    Crew crew("backward", plan_backward, shape, p);
    const int threads = crew.plan().threads();

    BackwardJob job{};
    job.call = &call;
    job.grid = crew.grid();
    job.panels = panels_of(shape, p.H);
    job.ld_state = row_stride(p.H, shape.row_bytes);
    job.delta_block = padded_depth(shape, p.H);
    job.ld_delta = row_stride(shape.deltas * job.delta_block, shape.row_bytes);
    std::copy_n(tape.inputs, kMaxPhases, job.inputs);
    std::copy_n(tape.states, kMaxStates, job.states);
    job.saved = tape.saved;
    job.block_rows = std::min(kBlockRows, padded_depth(shape, p.T * p.B));
    const int64_t widest = std::max(p.I, p.H);
    const int64_t wide = int64_t{shape.wide_panel} * shape.width;
    job.block_columns = std::min(kBlockColumns, divide_up(widest, wide) * wide);

    Arena scratch;
    const size_t row_bytes = size_of(shape.row_bytes), panel_bytes = size_of(shape.panel_bytes);
    const size_t real_bytes = size_of(shape.real_bytes);
    const int delta = scratch.reserve(count(p.T, p.B, job.ld_delta), row_bytes);
    int carry[kMaxStates] = {}, transposed[kMaxPhases] = {};
    for (int i = 0; i < shape.states; ++i) {
      carry[i] = scratch.reserve(count(p.B, job.ld_state), real_bytes);
    }
    const int64_t narrow = int64_t{shape.recurrent_panel} * shape.width;
    for (int i = 0; i < shape.phases; ++i) {
      transposed[i] = scratch.reserve(
          count(divide_up(p.H, narrow) * narrow, shape.phase_gates[i], job.delta_block),
          panel_bytes);
    }
    const bool wants_dx = call.dx.data != nullptr;
    const int input = scratch.reserve(
        wants_dx ? count(divide_up(p.I, wide) * wide, shape.gates, job.delta_block) : 0,
        panel_bytes);
    // The blocks of both operands, which are rows.
    job.scratch.bytes = count(divide_up(job.block_rows, kRowUnit) * kRowUnit,
                              job.block_columns + shape.gradient_rows) *
                        row_bytes;
    const int blocks = scratch.reserve(static_cast<size_t>(threads), job.scratch.bytes);
    const bool narrow_edge = shape.edge_bytes < shape.real_bytes;
    const int64_t gate_rows = narrow_edge ? shape.gates * p.H : 0;
    const int dw_ih =
        scratch.reserve(call.dw_ih.data == nullptr ? 0 : count(gate_rows, p.I), real_bytes);
    const int dw_hh =
        scratch.reserve(call.dw_hh.data == nullptr ? 0 : count(gate_rows, p.H), real_bytes);
    scratch.allocate();
    job.delta = scratch.at(delta);
    for (int i = 0; i < shape.states; ++i) job.carry[i] = scratch.at(carry[i]);
    for (int i = 0; i < shape.phases; ++i) job.packed_transposed[i] = scratch.at(transposed[i]);
    job.packed_input = scratch.at(input);
    job.scratch.data = scratch.at(blocks);
    job.dw_ih = scratch.at(dw_ih);
    job.dw_hh = scratch.at(dw_hh);

    crew.run(kernels.backward, job);
  }

 private:
  // `frozen`: weights packed before, or null. With `tape` null nothing is kept.
  static void run_forward(const ForwardCall& call, Isa isa, const CpuFrozen* frozen,
                          std::unique_ptr<BackendTape>* tape) {
    const Problem& p = call.problem;
    const CellKernels& kernels = kernels_for(isa, p);
    const CellShape& shape = kernels.shape;
    Crew crew("forward", plan_forward, shape, p);
    const Plan& plan = crew.plan();
    ForwardJob job = blank_job(call, shape, plan);
    job.grid = crew.grid();
    job.save = tape != nullptr;

    Arena kept, scratch;
    const StatesLayout states(kept, shape, p, job.save);
    kept.allocate();
    states.point(kept, job);

    // Weights that serve one step are not worth a place in memory.
    const bool stream = frozen == nullptr && p.T == 1;
    const ScratchLayout buffers(scratch, shape, p, plan, stream);
    if (frozen != nullptr) {
      scratch.allocate();
      use_packed(*frozen, job);
    } else {
      const PackedLayout weights(scratch, shape, p.I, p.H, !stream);
      scratch.allocate();
      weights.point(scratch, job);
    }
    buffers.point(scratch, job);
    auto result = tape == nullptr ? nullptr : std::make_unique<CpuTape>();

    crew.run(kernels.forward, job);

    if (tape == nullptr) return;
    result->isa = isa;
    std::copy_n(job.inputs, kMaxPhases, result->inputs);
    std::copy_n(job.states, kMaxStates, result->states);
    result->saved = job.saved;
    result->memory = kept.release();
    *tape = std::move(result);
  }
};

// Not a static inside a function, which is a lock that a fork can copy while it is held.
constinit const CpuBackend kBackend;

}  // namespace

void evaluate_activation(Dtype dtype, int which, const void* in, void* out, int64_t n) {
  const FlushDenormals mode;
  const Arithmetic arithmetic = dtype == Dtype::float64 ? Arithmetic::float64 : Arithmetic::float32;
  unit_of(selected_isa(), arithmetic).activation(which, in, out, n);
}

}  // namespace fusedrnn::cpu

namespace fusedrnn {

const Backend& cpu_backend() { return cpu::kBackend; }

}  // namespace fusedrnn
