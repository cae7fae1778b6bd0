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
    job.matrix = matrix_use(shape, p, plan.unit_groups);
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

// Which way is quicker depends on the time between steps, in which other threads fall asleep, on
// what else the machine does, and where it is virtual on which CPUs it has. No model knows that: of
// many steps a few are timed, each way, and decide of the rest.
struct TeamSteps {
  TeamSteps(const Packed& weights, int64_t B) : packed(weights), batch(B) {}
  TeamSteps(const TeamSteps&) = delete;
  TeamSteps& operator=(const TeamSteps&) = delete;

  void take(const StepCall& call, Step& alone) {
    if (most != get_num_threads()) make_plan();
    if (plan.threads() == 1) return cpu::take(alone, call);
    if (number < kTrialSteps) return try_out(call, alone);
    if (++number == next_trial) number = 0;
    if (!quicker || !take_together(call)) cpu::take(alone, call);
  }

 private:
  using Clock = std::chrono::steady_clock;

  // Of a trial the first are taken alone, then some as a team, of which the last are timed: threads
  // that have slept are slow at first. Medians count, as any step may be disturbed. Few steps that
  // are far too slow end it: threads wait for a CPU that others have.
  static constexpr int kTimed = 7, kWarmUp = 32, kTrialSteps = kTimed + kWarmUp + kTimed;
  static constexpr int kTooSlow = 8, kMostTooSlow = 3;
  // From one trial to the next; after each that the team has lost twice as many.
  static constexpr int kFewestSteps = 4096, kMostSteps = 65536;

  // As if threads were near each other, which the trial decides.
  void make_plan() {
    most = get_num_threads();
    Problem problem = packed.problem;
    problem.B = batch;
    const KernelShape& shape = shape_for(packed.isa, problem);
    const Profile profile{1, {{1, batch}}};
    const Threads awake{most, kNearBarrier, true};
    plan = plan_step(shape, problem, profile, awake, nullptr);
    if (logs_plans()) log_plan("step", plan_step, shape, problem, profile, awake, plan);
    prepared = false;
    number = 0;
    next_trial = kFewestSteps;
  }

  // Whether the team could be had.
  bool take_together(const StepCall& call) {
    Team team(plan.threads());
    if (team.size() < plan.threads()) return false;
    if (!prepared) {
      memory = allocate([&](Arena& arena) { together.emplace(packed, batch, plan, arena); });
      prepared = true;
    }
    together->begin(call);
    team.run([](void* context, int thread) { static_cast<const Step*>(context)->run(thread); },
             &*together);
    return true;
  }

  void try_out(const StepCall& call, Step& alone) {
    const int timed = number < kTimed ? number : number - kTimed - kWarmUp;
    const Clock::time_point begin = Clock::now();
    if (number < kTimed || !take_together(call)) cpu::take(alone, call);
    const Clock::duration duration = Clock::now() - begin;
    if (timed >= 0) spent[timed] = duration;
    if (++number == kTimed) {
      of_one = median();
      too_slow = 0;
    } else if (number > kTimed && duration > kTooSlow * of_one && ++too_slow == kMostTooSlow) {
      decide(false);
    } else if (number == kTrialSteps) {
      decide(median() < of_one);
    }
  }

  void decide(bool for_team) {
    quicker = for_team;
    next_trial = for_team ? kFewestSteps : std::min(2 * next_trial, kMostSteps);
    number = kTrialSteps;
  }

  Clock::duration median() {
    std::nth_element(spent, spent + kTimed / 2, spent + kTimed);
    return spent[kTimed / 2];
  }

  const Packed& packed;
  const int64_t batch;
  int most = 0;  // threads that the plan was made for
  Plan plan;
  int number = 0;  // of steps since the last trial began
  int next_trial = kFewestSteps;
  Clock::duration spent[kTimed], of_one;
  int too_slow = 0;
  bool quicker = false;  // as a team
  bool prepared = false;
  Block memory;
  std::optional<Step> together;
};

void FreeTeamSteps::operator()(const TeamSteps* steps) const noexcept { delete steps; }

TeamStepsPointer prepare_team_steps(const Packed& packed, int64_t B) {
  return TeamStepsPointer(new TeamSteps(packed, B));
}

void take(TeamSteps& steps, const StepCall& call, Step& alone) { steps.take(call, alone); }

}  // namespace fusedrnn::cpu
