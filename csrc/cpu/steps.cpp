// Single steps with packed weights: on the calling thread, or on a team where that is quicker.
#include <algorithm>
#include <chrono>
#include <optional>

#include "cpu/fp_mode.h"
#include "cpu/packed.h"
#include "cpu/plan_log.h"

namespace fusedrnn::cpu {

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
    set_step(call, shape, job);
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
