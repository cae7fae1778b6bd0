// The CPU engine: plans a call, lays out its memory, and runs the kernels of the instruction set in
// use on a team of threads. Knows no cell by name: all it needs is a KernelShape.
#include "cpu/engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>

#include "core/memory.h"
#include "cpu/fp_mode.h"
#include "cpu/heads.h"
#include "cpu/isa/units.h"
#include "cpu/layout.h"
#include "cpu/order.h"
#include "cpu/plan.h"
#include "cpu/plan_log.h"
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

// Of one thread alone, step by step.
void set_alone(const ForwardCall& call, const KernelShape& shape, ForwardJob& job) {
  job.call = &call;
  job.shape = &shape;
  job.grid = {1, 1, nullptr, nullptr};
  job.ld_state = state_stride(shape, call.problem);
  job.chunk_steps = 1;
}

PackedWeights weights_of(const Packed& packed) {
  return {&packed.cell, packed.calls.fetch_add(1, std::memory_order_relaxed) % 2 != 0};
}

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
      std::list<Task<Call>> tasks;
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
  set_alone(call, shape, job);
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

struct Step {
  Step(const Packed& weights, int64_t B, const Plan& plan, Arena& arena)
      : unit(unit_for(weights.isa, weights.problem)) {
    Problem& p = call.problem = weights.problem;
    p.B = B;
    const KernelShape& shape = unit.cells[p.cell];
    call.x.b_stride = p.I;
    for (int s = 0; s < shape.state_count; ++s) {
      const int64_t size = extent(p, shape.states[s].size);
      call.state_0[s].stride = call.state_n[s].stride = size;
      if (s == 0) call.y.b_stride = size;
    }
    set_alone(call, shape, job);
    job.grid = barriers.grid(plan);
    use_packed(weights_of(weights), job);
    add_states(arena, shape, p, false, job.kept);
    add_scratch(arena, shape, p, plan, false, job);
  }
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;

  // The output is the new h; `next` may be `prev`, of which nothing is read after the first write.
  void begin(const StepCall& step) noexcept {
    job.turned = !job.turned;
    call.x.data = const_cast<void*>(step.x);
    for (int s = 0; s < job.shape->state_count; ++s) {
      call.state_0[s].data = const_cast<void*>(step.prev[s]);
      (s == 0 ? call.y.data : call.state_n[s].data) = step.next[s];
    }
  }
  // What a thread of the plan does of it.
  void run(int thread) const noexcept {
    const FlushDenormals mode;
    unit.forward(job, thread);
  }

  const Unit& unit;
  Barriers barriers;
  ForwardCall call;
  ForwardJob job{};
};

void FreeStep::operator()(const Step* step) const noexcept { delete step; }

size_t step_workspace(const Packed& packed, int64_t B) {
  Arena arena;
  const Step step(packed, B, Plan{}, arena);
  return arena.total();
}

StepPointer prepare_step(const Packed& packed, int64_t B, void* workspace) {
  Arena arena(workspace);
  return StepPointer(new Step(packed, B, Plan{}, arena));
}

void take(Step& step, const StepCall& call) noexcept {
  step.begin(call);
  step.run(0);
}

void step(const Packed& packed, const StepCall& call, void* workspace) noexcept {
  Arena arena(workspace);
  Step step(packed, call.B, Plan{}, arena);
  take(step, call);
}

struct TeamSteps {
  TeamSteps(const Packed& weights, int64_t B) : packed(weights), batch(B) {}
  TeamSteps(const TeamSteps&) = delete;
  TeamSteps& operator=(const TeamSteps&) = delete;

  void take(const StepCall& call, Step& alone) {
    if (most != get_num_threads()) make_plan();
    if (plan.threads() == 1) return cpu::take(alone, call);
    const Clock::time_point now = Clock::now();
    close = now - last < kClose ? std::min(close + 1, kCloseSteps) : 0;
    last = now;
    if (!worth_waking && close < kCloseSteps) return cpu::take(alone, call);
    const uint32_t trial = number++ % kStepsOfChoice;
    const bool as_team = trial < kTrialSteps ? trial >= kTimed : quicker;
    if (!as_team || !take_together(call)) cpu::take(alone, call);
    if (trial < kTrialSteps) time(trial, Clock::now() - now);
  }

 private:
  using Clock = std::chrono::steady_clock;

  // Steps that begin within this time of each other find the threads of the last one awake, which
  // look for work for longer. A few are waited for, as to wake them costs more than a step may.
  static constexpr auto kClose = std::chrono::microseconds(40);
  static constexpr int kCloseSteps = 16;
  // Which way is quicker depends on what else the machine does, and where it is virtual on which
  // CPUs it has: of so many steps some are timed, each way, and decide of the rest. Medians count,
  // as any step may be disturbed; threads that have slept are slow at first.
  static constexpr uint32_t kStepsOfChoice = 4096, kTimed = 7, kWarmUp = 32;
  static constexpr uint32_t kTrialSteps = kTimed + kWarmUp + kTimed;

  void make_plan() {
    const int threads = get_num_threads();
    Problem problem = packed.problem;
    problem.B = batch;
    const KernelShape& shape = shape_for(packed.isa, problem);
    const Profile profile{1, {{1, batch}}};
    const auto plan_with = [&](const Threads& some) {
      return plan_step(shape, problem, profile, some, nullptr);
    };
    const Threads awake{threads, kNearBarrier, true};
    const Plan best = plan_with(awake);
    if (logs_plans()) log_plan("step", plan_step, shape, problem, profile, awake, best);
    plan = {};  // should there be no memory
    memory = allocate([&](Arena& arena) { together.emplace(packed, batch, best, arena); });
    plan = best;
    worth_waking = plan_with({threads, kFarBarrier, false}).threads() > 1;
    number = 0;
    most = threads;
  }

  // Whether the team could be had.
  bool take_together(const StepCall& call) {
    Team team(plan.threads());
    if (team.size() < plan.threads()) return false;
    together->begin(call);
    team.run([](void* context, int thread) { static_cast<const Step*>(context)->run(thread); },
             &*together);
    return true;
  }

  void time(uint32_t trial, Clock::duration duration) {
    if (trial < kTimed) spent[0][trial] = duration;
    if (trial >= kTimed + kWarmUp) spent[1][trial - kTimed - kWarmUp] = duration;
    if (trial + 1 < kTrialSteps) return;
    const auto median = [](Clock::duration* times) {
      std::nth_element(times, times + kTimed / 2, times + kTimed);
      return times[kTimed / 2];
    };
    quicker = median(spent[1]) < median(spent[0]);
  }

  const Packed& packed;
  const int64_t batch;
  int most = 0;  // threads that the plan was made for
  Plan plan;
  bool worth_waking = false;  // even threads that sleep
  Clock::time_point last{};
  int close = 0;                     // steps that began soon after the one before
  uint32_t number = 0;               // of steps that may be a team's
  Clock::duration spent[2][kTimed];  // alone, and as a team
  bool quicker = false;              // as a team
  Block memory;
  std::optional<Step> together;
};

void FreeTeamSteps::operator()(const TeamSteps* steps) const noexcept { delete steps; }

TeamStepsPointer prepare_team_steps(const Packed& packed, int64_t B) {
  return TeamStepsPointer(new TeamSteps(packed, B));
}

void take(TeamSteps& steps, const StepCall& call, Step& alone) { steps.take(call, alone); }

}  // namespace fusedrnn::cpu
