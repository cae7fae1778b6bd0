// The threads of one call, and its plan.
#pragma once

#include <forward_list>
#include <vector>

#include "cpu/fp_mode.h"
#include "cpu/kernels/job.h"
#include "cpu/plan.h"
#include "cpu/plan_log.h"
#include "cpu/threads/pool.h"

namespace fusedrnn::cpu {

// The plan of one call, the threads that carry it out and the barriers they meet at.
class Crew {
 public:
  // `pass`: its name in the log.
  Crew(const char* pass, Planner planner, const KernelShape& shape, const Problem& p,
       const Profile& profile)
      : plan_(planner(shape, p, profile, get_num_threads(), nullptr)), team_(plan_.threads()) {
    int threads = get_num_threads();
    // Another call may hold the pool: then fewer threads run, and the plan is theirs.
    if (team_.size() < plan_.threads()) {
      threads = team_.size();
      plan_ = planner(shape, p, profile, threads, nullptr);
    }
    if (logs_plans()) log_plan(pass, planner, shape, p, profile, threads, plan_);
    if (plan_.threads() == 1) return;
    for (int i = 0; i < plan_.row_groups; ++i) {
      group_.push_back(&barriers_.emplace_front(plan_.unit_groups));
    }
    barriers_.emplace_front(plan_.threads());
  }

  const Plan& plan() const { return plan_; }

  Grid grid() {
    Barrier* const all = barriers_.empty() ? nullptr : &barriers_.front();
    return {plan_.row_groups, plan_.unit_groups, all, group_.data()};
  }

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
  std::forward_list<Barrier> barriers_;  // none for a single thread: small calls allocate little
  std::vector<Barrier*> group_;
};

}  // namespace fusedrnn::cpu
