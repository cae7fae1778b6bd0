#include "cpu/schedule.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "cpu/plan_log.h"
#include "cpu/threads/progress.h"

namespace fusedrnn::cpu {

namespace {

// How much less time runs side by side must take than one after the other, to be worth the memory
// that each of them needs at the same time.
constexpr double kWorthwhile = 0.95;

// Steps of a chain after which the next run goes on: few beside all, and enough rows for the
// products to be efficient, of more rows where weights come from far for each of them.
template <class Call>
int64_t steps_of_chain(const Tasks<Call>& tasks) {
  const Problem& p = tasks.front().call().problem;
  const bool near = std::all_of(tasks.begin(), tasks.end(),
                                [](const Task<Call>& task) { return task.weights_stay_near(); });
  const int64_t parts = near ? 32 : 16, fewest_rows = near ? 4 : 8;
  return std::min(p.T, std::max(divide_up(p.T, parts), divide_up(fewest_rows, p.B)));
}

// Lanes of equally many threads; the tasks are dealt to them in turn.
struct Lanes {
  int count = 1;
  int threads = 0;  // of each
};

// What a task costs without waking its team.
double work_of(const Plan& plan) { return plan.cycles - (plan.threads() > 1 ? kTeamCycles : 0); }

// Plans the tasks for lanes, where that is worthwhile; else one lane is the answer.
template <class Call>
Lanes find_lanes(Tasks<Call>& tasks, Bond bond) {
  const int threads = get_num_threads();
  const Problem& p = tasks.front().call().problem;
  // A lean problem's dx comes chunk by chunk, in the order of its own walk.
  const bool may = Task<Call>::kForward || !p.lean;
  Lanes lanes{std::min(threads, static_cast<int>(tasks.size())), 0};
  if (!may || lanes.count == 1) return {};
  lanes.threads = threads / lanes.count;
  double in_sequence = 0;
  for (Task<Call>& task : tasks) in_sequence += task.plan(threads).cycles;
  std::vector<double> of_lane(static_cast<size_t>(lanes.count));
  double longest = 0;
  size_t number = 0;
  for (Task<Call>& task : tasks) {
    const double work = work_of(task.plan(lanes.threads));
    of_lane[number++ % of_lane.size()] += work;
    longest = std::max(longest, work);
  }
  double side_by_side = *std::max_element(of_lane.begin(), of_lane.end()) + kTeamCycles;
  if (bond != Bond::chain) return side_by_side < kWorthwhile * in_sequence ? lanes : Lanes{};
  const int64_t steps = steps_of_chain(tasks);
  const double lag = static_cast<double>(steps) / static_cast<double>(p.T) * longest;
  side_by_side += (lanes.count - 1) * lag;
  if (side_by_side >= kWorthwhile * in_sequence) return {};
  // Handing parts on must not cost what the other lanes take off one: each goes one way, which is
  // half a barrier.
  const double one_lane = std::accumulate(of_lane.begin(), of_lane.end(), 0.0);
  const auto pays = [&](double barrier) {
    return side_by_side + static_cast<double>(divide_up(p.T, steps)) * barrier / 2 < one_lane;
  };
  return pays(kFarBarrier) || pays(barrier_of_pool(lanes.count)) ? lanes : Lanes{};
}

bool has_dx(const ForwardCall&) { return false; }
bool has_dx(const BackwardCall& call) { return call.dx.data != nullptr; }

// Runs side by side: a thread's lane, and its number there.
template <class Call>
class SideBySide {
 public:
  // Of tasks that are planned for the lanes.
  SideBySide(Tasks<Call>& tasks, Bond bond, const Lanes& lanes) : lanes_(lanes) {
    const Progress* before = nullptr;
    bool reverse = false;
    const int64_t steps = bond == Bond::chain ? steps_of_chain(tasks) : 0;
    size_t number = 0;
    for (Task<Call>& task : tasks) {
      const Call& call = task.call();
      Links links{};
      const bool adds = has_dx(call);  // to a dx that others add to as well
      if (bond == Bond::chain) {
        links.source = before;
        // The last run of a backward pass computes its dx while it waits for the one before, which
        // began with it and has no less to do; else after the walk, in larger blocks.
        const bool waits = number++ % static_cast<size_t>(lanes_.count) != 0 &&
                           call.problem.I <= tasks.front().call().problem.I;
        if (Task<Call>::kForward || &task != &tasks.back() || waits) links.steps = steps;
      } else if (adds) {
        if (before == nullptr) reverse = call.problem.reverse;
        links.dx_before = before;
        links.dx_reverse = reverse;
      }
      if ((bond == Bond::chain || adds) && &task != &tasks.back()) {
        before = links.own = &progress_.emplace_back(task.plan().threads());
      }
      task.prepare(links);
      tasks_.push_back(&task);
    }
  }

  void run(int thread) const noexcept {
    const auto lane = static_cast<size_t>(thread / lanes_.threads);
    for (size_t i = lane; i < tasks_.size(); i += static_cast<size_t>(lanes_.count)) {
      tasks_[i]->run(thread % lanes_.threads);
    }
  }

 private:
  const Lanes lanes_;
  std::list<Progress> progress_;
  std::vector<const Task<Call>*> tasks_;
};

}  // namespace

template <class Call>
void run_alone(Task<Call>& task) {
  const int threads = task.plan(get_num_threads()).threads();
  Team team(threads);
  // Another call may hold the pool: then fewer threads run, and the plan is theirs.
  if (team.size() < threads) task.plan(team.size());
  task.prepare({});
  team.run([](void* context, int thread) { static_cast<Task<Call>*>(context)->run(thread); },
           &task);
}

template <class Call>
void run_together(Tasks<Call>& tasks, Bond bond) {
  const Lanes lanes = find_lanes(tasks, bond);
  if (lanes.count > 1) {
    Team team(lanes.count * lanes.threads);
    if (team.size() == lanes.count * lanes.threads) {
      SideBySide<Call> side_by_side(tasks, bond, lanes);
      if (logs_plans()) log_lanes(lanes.count, lanes.threads);
      return team.run(
          [](void* context, int thread) {
            static_cast<const SideBySide<Call>*>(context)->run(thread);
          },
          &side_by_side);
    }
  }
  for (; !tasks.empty(); tasks.pop_front()) run_alone(tasks.front());
}

template void run_alone(Task<ForwardCall>& task);
template void run_alone(Task<BackwardCall>& task);
template void run_together(Tasks<ForwardCall>& tasks, Bond bond);
template void run_together(Tasks<BackwardCall>& tasks, Bond bond);

}  // namespace fusedrnn::cpu
