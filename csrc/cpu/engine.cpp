// The CPU engine: plans a call, lays out its memory, and runs the kernels of the instruction set in
// use on a team of threads. Knows no cell by name: all it needs is a KernelShape.
#include "cpu/engine.h"

#include <algorithm>

#include "cpu/fp_mode.h"
#include "cpu/heads.h"
#include "cpu/isa/units.h"
#include "cpu/layout.h"
#include "cpu/order.h"
#include "cpu/packed.h"
#include "cpu/plan.h"
#include "cpu/schedule.h"
#include "cpu/task.h"
#include "cpu/threads/progress.h"
#include "cpu/unpack.h"

namespace fusedrnn::cpu {

void wait_at(Barrier& barrier) noexcept { barrier.wait(); }
void wait_for(const Progress& progress, int64_t count) noexcept { progress.wait(count); }
void report(Progress& progress, int thread, int64_t count) noexcept {
  progress.report(thread, count);
}

void FreePacked::operator()(const Packed* packed) const noexcept { delete packed; }

namespace {

// Calls make(...) with what the task of a run is made of.
template <class Call, class Make>
void with_parts(const NetworkRun<Call>& run, const Make& make) {
  if (run.packed == nullptr) return make(run.call, selected_isa(), PackedWeights{});
  make(run.call, run.packed->isa, weights_of(*run.packed));
}

template <class Call>
void run_all(std::span<const NetworkRun<Call>> runs) {
  while (!runs.empty()) {
    const auto [count, bond] = find_together(runs);
    if (count == 1) {
      with_parts(runs.front(), [](const auto&... parts) {
        Task<Call> task(parts...);
        run_alone(task);
      });
    } else {
      Tasks<Call> tasks;
      for (const NetworkRun<Call>& run : runs.first(count)) {
        with_parts(run, [&](const auto&... parts) { tasks.emplace_back(parts...); });
      }
      run_together(tasks, bond);
    }
    runs = runs.subspan(count);
  }
}

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

void run(std::span<const NetworkRun<ForwardCall>> runs) { run_all(runs); }
void run(std::span<const NetworkRun<BackwardCall>> runs) { run_all(runs); }

void gates(const GatesCall& call) {
  const Unit& unit = unit_for(selected_isa(), call.problem);
  const KernelShape& shape = unit.cells[call.problem.cell];
  States kept{};
  Arena memory(const_cast<void*>(call.reserve));  // only read
  add_states(memory, shape, call.problem, true, kept);
  SequenceOrder order(call.flags, call.problem.T, call.problem.B);
  unit.gates(call, shape, order.round_robin(1), kept.saved);
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
  ForwardJob job{};
  set_step(call, shape, job);
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

}  // namespace fusedrnn::cpu
