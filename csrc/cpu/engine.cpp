// The CPU engine: plans a call, lays out its memory, and runs the kernels of the instruction set in
// use on a team of threads. Knows no cell by name: all it needs is a KernelShape.
#include "cpu/engine.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "core/memory.h"
#include "cpu/crew.h"
#include "cpu/fp_mode.h"
#include "cpu/heads.h"
#include "cpu/isa/units.h"
#include "cpu/layout.h"
#include "cpu/order.h"
#include "cpu/plan.h"
#include "cpu/unpack.h"

namespace fusedrnn::cpu {

void wait_at(Barrier& barrier) noexcept { barrier.wait(); }

struct Packed {
  Isa isa;
  Problem problem;  // of one step of one sequence, with heads of whole panels
  int64_t heads;    // that it was given
  Block memory;
  PackedCell cell{};
  mutable std::atomic<uint32_t> calls{0};
};

void FreePacked::operator()(const Packed* packed) const noexcept { delete packed; }

namespace {

const Unit& unit_for(Isa isa, const Problem& p) { return unit_of(isa, arithmetic_of(p)); }

const KernelShape& shape_for(Isa isa, const Problem& p) { return unit_for(isa, p).cells[p.cell]; }

constexpr Grid kAlone{1, 1, nullptr, nullptr};

// A job of which the memory is not known yet. `packed`: weights packed before, or null.
ForwardJob forward_job(const ForwardCall& call, const KernelShape& shape, const Grid& grid,
                       const Plan& plan, const Packed* packed) {
  ForwardJob job{};
  job.call = &call;
  job.shape = &shape;
  job.grid = grid;
  job.ld_state = state_stride(shape, call.problem);
  job.chunk_steps = plan.chunk_steps;
  if (packed != nullptr) {
    job.frozen = true;
    job.turned = packed->calls.fetch_add(1, std::memory_order_relaxed) % 2 != 0;
    job.packed = packed->cell;
  }
  return job;
}

// The reset states of a call, for those that take its steps again.
void keep_resets(const ForwardCall& call, const KernelShape& shape,
                 const Checkpoints& checkpoints) {
  for (int s = 0; s < shape.state_count; ++s) {
    const void* const given = call.reset_state[s].data;
    const size_t bytes =
        static_cast<size_t>(extent(call.problem, shape.states[s].size)) * shape.edge_bytes;
    if (given == nullptr) {
      std::memset(checkpoints.resets[s], 0, bytes);
    } else {
      std::memcpy(checkpoints.resets[s], given, bytes);
    }
  }
}

void run_forward(const ForwardCall& given, Isa isa, const Packed* packed) {
  const Unit& unit = unit_for(isa, given.problem);
  const KernelShape& shape = unit.cells[given.problem.cell];
  const WithWholeHeads call_with_whole_heads(given, shape, packed == nullptr);
  const ForwardCall& call = *call_with_whole_heads;
  const Problem& p = call.problem;
  SequenceOrder order(call.flags, p.T, p.B);
  Crew crew("forward", plan_forward, shape, p, order.profile());
  ForwardJob job = forward_job(call, shape, crew.grid(), crew.plan(), packed);
  job.order = order.dealt_to(crew.plan().row_groups);
  job.save = call.reserve != nullptr && !p.lean;
  job.masks_operand = masks_operand(p, job.save);

  Arena kept(call.reserve);
  if (job.save) {
    add_states(kept, shape, p, true, job.kept);
  } else if (call.reserve != nullptr) {
    add_checkpoints(kept, shape, p, job.checkpoints);
    keep_resets(call, shape, job.checkpoints);
  }
  // Weights that serve one step are not worth a place in memory.
  const bool stream = packed == nullptr && p.T == 1;
  const Block memory = allocate([&](Arena& arena) {
    if (!job.save) add_states(arena, shape, p, false, job.kept);
    if (packed == nullptr) add_packed(arena, shape, p, !stream, job.packed);
    add_scratch(arena, shape, p, crew.plan(), stream, job);
  });
  crew.run(unit.forward, job);
}

// `from`, of B sequences.
void set_sequences(const Problem& from, int64_t B, Problem& p) {
  p = from;
  p.B = B;
}

// A job that takes the steps of chunks again, from the checkpoints in a reserve. `again`: its call.
void prepare_again(const BackwardCall& call, Arena& reserve, ForwardCall& again, BackwardJob& job) {
  const KernelShape& shape = *job.shape;
  again.problem = call.problem;
  again.problem.lean = false;
  again.x = call.x;
  again.flags = call.flags;
  std::copy_n(call.parameters, kMaxParameters, again.parameters);
  job.again = forward_job(again, shape, job.grid, Plan{}, nullptr);
  job.again.save = true;
  job.again.masks_operand = masks_operand(call.problem, true);
  add_checkpoints(reserve, shape, call.problem, job.again.checkpoints);
  for (int s = 0; s < shape.state_count; ++s) {
    again.reset_state[s].data = job.again.checkpoints.resets[s];
  }
}

// Whether gradients of states are wanted, limited or given where no step exists.
bool reaches_padding(const BackwardCall& call, const SequenceOrder& order) {
  bool reaches = call.clip_dh > 0;
  bool gives = call.dy.data != nullptr;
  for (int s = 0; s < kMaxStates; ++s) {
    reaches |= call.flow[s] != nullptr;
    gives |= call.dstate_y[s].data != nullptr;
  }
  return reaches || (gives && order.shows_padding());
}

void add_step(Arena& arena, ForwardJob& job) {
  const Problem& p = job.call->problem;
  add_states(arena, *job.shape, p, false, job.kept);
  add_scratch(arena, *job.shape, p, Plan{}, false, job);
}

}  // namespace

namespace {

size_t reserve_bytes(Isa isa, const Problem& p) {
  const KernelShape& shape = shape_for(isa, p);
  Arena arena;
  if (p.lean) {
    Checkpoints checkpoints{};
    add_checkpoints(arena, shape, p, checkpoints);
  } else {
    States kept{};
    add_states(arena, shape, p, true, kept);
  }
  return arena.total();
}

}  // namespace

size_t reserve_bytes(const Problem& p) { return reserve_bytes(selected_isa(), p); }

size_t largest_reserve_bytes(const Problem& p) {
  size_t bytes = 0;
  for (const Isa isa : compiled_isas()) bytes = std::max(bytes, reserve_bytes(isa, p));
  return bytes;
}

void forward(const ForwardCall& call) { run_forward(call, selected_isa(), nullptr); }

void forward(const Packed& packed, const ForwardCall& call) {
  run_forward(call, packed.isa, &packed);
}

void backward(const BackwardCall& given) {
  const Unit& unit = unit_for(selected_isa(), given.problem);
  const KernelShape& shape = unit.cells[given.problem.cell];
  const WithWholeHeads call_with_whole_heads(given, shape, true);
  const BackwardCall& call = *call_with_whole_heads;
  const Problem& p = call.problem;
  SequenceOrder order(call.flags, p.T, p.B);
  Crew crew("backward", plan_backward, shape, p, order.profile());
  BackwardJob job{};
  job.call = &call;
  job.shape = &shape;
  job.grid = crew.grid();
  job.order = order.dealt_to(crew.plan().row_groups);
  job.all_rows = reaches_padding(call, order);
  job.gradient_heads = given.problem.heads;
  job.ld_state = state_stride(shape, p);
  Arena kept(const_cast<void*>(call.reserve));  // the kernels only read it
  ForwardCall again;
  if (p.lean) {
    prepare_again(call, kept, again, job);
  } else {
    add_states(kept, shape, p, true, job.kept);
  }
  const Block memory = allocate([&](Arena& arena) { add_scratch(arena, crew.plan(), job); });
  again.y = {job.again_y, 0, p.P};
  crew.run(unit.backward, job);
}

void gates(const GatesCall& call) {
  const Unit& unit = unit_for(selected_isa(), call.problem);
  const KernelShape& shape = unit.cells[call.problem.cell];
  States kept{};
  Arena memory(const_cast<void*>(call.reserve));  // only read
  add_states(memory, shape, call.problem, true, kept);
  SequenceOrder order(call.flags, call.problem.T, call.problem.B);
  unit.gates(call, shape, order.dealt_to(1), kept.saved);
}

void drop(const DropCall& call) {
  // As many as are worth waking a thread for.
  constexpr int64_t kElementsOfThread = int64_t{1} << 15;
  Problem p;
  p.dtype = call.dtype;
  struct Context {
    const DropCall& call;
    const Unit& unit;
    int threads;
  } context{call, unit_for(selected_isa(), p), 1};
  const int64_t worth = call.T * call.B * call.n / kElementsOfThread + 1;
  Team team(static_cast<int>(std::min<int64_t>(worth, get_num_threads())));
  context.threads = team.size();
  team.run(
      [](void* opaque, int thread) {
        const Context& c = *static_cast<const Context*>(opaque);
        const FlushDenormals mode;
        c.unit.drop(c.call, thread, c.threads);
      },
      &context);
}

PackedPointer freeze(const FreezeCall& freeze) {
  std::unique_ptr<Packed, FreePacked> packed(
      new Packed{selected_isa(), freeze.problem, freeze.problem.heads, {}});
  packed->problem.T = packed->problem.B = 1;
  const KernelShape& shape = shape_for(packed->isa, packed->problem);

  ForwardCall given;
  given.problem = packed->problem;
  std::copy_n(freeze.parameters, kMaxParameters, given.parameters);
  const WithWholeHeads call_with_whole_heads(given, shape, true);
  const ForwardCall& call = *call_with_whole_heads;
  const Problem& p = packed->problem = call.problem;
  ForwardJob job = forward_job(call, shape, kAlone, Plan{}, nullptr);
  packed->memory = allocate([&](Arena& arena) { add_packed(arena, shape, p, true, job.packed); });
  packed->cell = job.packed;
  const FlushDenormals mode;
  unit_for(packed->isa, p).pack(job, 0);
  return packed;
}

void unpack(const Packed& packed, const UnpackCall& call) {
  unpack_cell(shape_for(packed.isa, packed.problem), packed.problem, packed.heads, packed.cell,
              call);
}

size_t step_workspace(const Packed& packed, int64_t B) {
  ForwardCall call;
  set_sequences(packed.problem, B, call.problem);
  const KernelShape& shape = shape_for(packed.isa, call.problem);
  ForwardJob job{};
  job.call = &call;
  job.shape = &shape;
  job.ld_state = state_stride(shape, call.problem);
  Arena arena;
  add_step(arena, job);
  return arena.total();
}

void step(const Packed& packed, const StepCall& step, void* workspace) noexcept {
  ForwardCall call;
  const Problem& p = call.problem;
  set_sequences(packed.problem, step.B, call.problem);
  const Unit& unit = unit_for(packed.isa, p);
  const KernelShape& shape = unit.cells[p.cell];
  call.x = {const_cast<void*>(step.x), 0, p.I};
  // The output is the new h; `next` may be `prev`, of which nothing is read after the first write.
  for (int s = 0; s < shape.state_count; ++s) {
    const int64_t size = extent(p, shape.states[s].size);
    call.state_0[s] = {const_cast<void*>(step.prev[s]), size};
    if (s == 0) {
      call.y = {step.next[s], 0, size};
    } else {
      call.state_n[s] = {step.next[s], size};
    }
  }
  ForwardJob job = forward_job(call, shape, kAlone, Plan{}, &packed);
  Arena arena(workspace);
  add_step(arena, job);
  const FlushDenormals mode;
  unit.forward(job, 0);
}

}  // namespace fusedrnn::cpu
