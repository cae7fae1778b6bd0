// One run of a call on the CPU: first its plan, then its memory, then its threads.
#pragma once

#include <forward_list>
#include <list>
#include <type_traits>
#include <vector>

#include "core/memory.h"
#include "cpu/heads.h"
#include "cpu/isa/units.h"
#include "cpu/kernels/job.h"
#include "cpu/order.h"
#include "cpu/plan.h"
#include "cpu/threads/pool.h"

namespace fusedrnn::cpu {

// Weights packed before, and whether a call goes through them from the last panel to the first.
struct PackedWeights {
  const PackedCell* cell = nullptr;  // null: there are none
  bool turned = false;
};

void use_packed(const PackedWeights& packed, ForwardJob& job);

// The barriers that the threads of a plan meet at; none for a single thread: small calls allocate
// little.
class Barriers {
 public:
  Grid grid(const Plan& plan);

 private:
  std::forward_list<Barrier> barriers_;
  std::vector<Barrier*> group_;
};

template <class Call>
class Task {
 public:
  static constexpr bool kForward = std::is_same_v<Call, ForwardCall>;
  using Job = std::conditional_t<kForward, ForwardJob, BackwardJob>;

  Task(const Call& call, Isa isa, const PackedWeights& packed = {});
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;

  const Call& call() const { return *call_; }
  // Plans for at most so many threads.
  const Plan& plan(int threads);
  const Plan& plan() const { return plan_; }
  bool weights_stay_near() const { return cpu::weights_stay_near(shape_, call().problem); }
  // Allocates what the threads of the plan need.
  void prepare(const Links& links);
  // Thread number `thread` of those that the plan was made for, all at the same time.
  void run(int thread) const noexcept;

 private:
  void lay_out();

  const Unit& unit_;
  const KernelShape& shape_;
  const WithWholeHeads<Call> call_;
  const int64_t heads_;  // that were given
  const PackedWeights packed_;
  SequenceOrder order_;
  const Profile profile_;
  Threads threads_{};
  Plan plan_;
  Barriers barriers_;
  Block memory_;
  ForwardCall again_;  // of a lean problem's backward
  Job job_{};
};

template <class Call>
using Tasks = std::list<Task<Call>, SmallAllocator<Task<Call>>>;

}  // namespace fusedrnn::cpu
