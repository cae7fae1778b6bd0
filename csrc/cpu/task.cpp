#include "cpu/task.h"

#include <algorithm>
#include <cstring>

#include "cpu/fp_mode.h"
#include "cpu/layout.h"
#include "cpu/plan_log.h"

namespace fusedrnn::cpu {

namespace {

template <class Call>
constexpr Planner kPlanner = nullptr;
template <>
constexpr Planner kPlanner<ForwardCall> = plan_forward;
template <>
constexpr Planner kPlanner<BackwardCall> = plan_backward;

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

// A job that takes the steps of chunks again, from the checkpoints in a reserve. `again`: its call.
void prepare_again(const BackwardCall& call, Arena& reserve, ForwardCall& again, BackwardJob& job) {
  const KernelShape& shape = *job.shape;
  again.problem = call.problem;
  again.problem.lean = false;
  again.x = call.x;
  again.flags = call.flags;
  std::copy_n(call.parameters, kMaxParameters, again.parameters);
  job.again.call = &again;
  job.again.shape = &shape;
  job.again.grid = job.grid;
  job.again.ld_state = job.ld_state;
  job.again.save = true;
  job.again.masks_operand = masks_operand(call.problem, true);
  add_checkpoints(reserve, shape, call.problem, job.again.checkpoints);
  for (int s = 0; s < shape.state_count; ++s) {
    again.reset_state[s].data = job.again.checkpoints.resets[s];
  }
}

// Whether the only row of a call is multiplied with weights as they lie. Rows of about a KiB or
// more share so few sets of a cache that the blocks which are transposed at a time push each other
// out.
bool reads_unpacked(const KernelShape& shape, const Problem& p) {
  constexpr int64_t kLongRowBytes = 960;
  const int64_t row_bytes = std::max({p.I, p.H, p.P}) * static_cast<int64_t>(shape.edge_bytes);
  const bool converts =
      shape.edge_bytes != shape.real_bytes || shape.panel_bytes != shape.real_bytes;
  return p.B == 1 && !converts && shape.norm_count == 0 && row_bytes < kLongRowBytes;
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

}  // namespace

void use_packed(const PackedWeights& packed, ForwardJob& job) {
  if (packed.cell == nullptr) return;
  job.frozen = true;
  job.turned = packed.turned;
  job.packed = *packed.cell;
}

Grid Barriers::grid(const Plan& plan) {
  if (plan.threads() == 1) return {1, 1, nullptr, nullptr};
  for (int i = 0; i < plan.row_groups; ++i) {
    group_.push_back(&barriers_.emplace_front(plan.unit_groups));
  }
  return {plan.row_groups, plan.unit_groups, &barriers_.emplace_front(plan.threads()),
          group_.data()};
}

template <class Call>
Task<Call>::Task(const Call& call, Isa isa, const PackedWeights& packed)
    : unit_(unit_of(isa, arithmetic_of(call.problem))),
      shape_(unit_.cells[call.problem.cell]),
      call_(call, shape_, packed.cell == nullptr),
      heads_(call.problem.heads),
      packed_(packed),
      order_(call.flags, call.problem.T, call.problem.B),
      profile_(order_.profile()) {}

template <class Call>
const Plan& Task<Call>::plan(int threads) {
  threads_.most = threads;
  plan_ = plan_for_pool(kPlanner<Call>, shape_, call().problem, profile_, threads_);
  return plan_;
}

template <class Call>
void Task<Call>::prepare(const Links& links) {
  if (links.steps > 0) plan_.chunk_steps = std::min(plan_.chunk_steps, links.steps);
  if (logs_plans()) {
    log_plan(kForward ? "forward" : "backward", kPlanner<Call>, shape_, call().problem, profile_,
             threads_, plan_);
  }
  job_.call = &call();
  job_.shape = &shape_;
  job_.grid = barriers_.grid(plan_);
  job_.links = links;
  job_.order = order_.round_robin(plan_.row_groups);
  job_.ld_state = state_stride(shape_, call().problem);
  job_.matrix = matrix_use(shape_, call().problem, plan_.unit_groups);
  lay_out();
}

template <>
void Task<ForwardCall>::lay_out() {
  const Problem& p = call().problem;
  job_.chunk_steps = plan_.chunk_steps;
  use_packed(packed_, job_);
  job_.save = call().reserve != nullptr && !p.lean;
  job_.masks_operand = masks_operand(p, job_.save);
  Arena kept(call().reserve);
  if (job_.save) {
    add_states(kept, shape_, p, true, job_.kept);
  } else if (call().reserve != nullptr) {
    add_checkpoints(kept, shape_, p, job_.checkpoints);
    keep_resets(call(), shape_, job_.checkpoints);
  }
  // Weights that serve one step are not worth a place in memory.
  const bool once = packed_.cell == nullptr && p.T == 1;
  job_.single_row = once && reads_unpacked(shape_, p);
  const bool stream = once && !job_.single_row;
  memory_ = allocate([&](Arena& arena) {
    if (!job_.save) add_states(arena, shape_, p, false, job_.kept);
    if (packed_.cell == nullptr) add_packed(arena, shape_, p, !once, job_.packed);
    add_scratch(arena, shape_, p, plan_, stream, job_);
  });
}

template <>
void Task<BackwardCall>::lay_out() {
  const Problem& p = call().problem;
  job_.all_rows = reaches_padding(call(), order_);
  job_.gradient_heads = heads_;
  Arena kept(const_cast<void*>(call().reserve));  // the kernels only read it
  if (p.lean) {
    prepare_again(call(), kept, again_, job_);
  } else {
    add_states(kept, shape_, p, true, job_.kept);
  }
  memory_ = allocate([&](Arena& arena) { add_scratch(arena, plan_, job_); });
  again_.y = {job_.again_y, 0, p.P};
}

template <class Call>
void Task<Call>::run(int thread) const noexcept {
  if (thread >= plan_.threads()) return;
  const FlushDenormals mode;
  if constexpr (kForward) {
    unit_.forward(job_, thread);
  } else {
    unit_.backward(job_, thread);
  }
}

template class Task<ForwardCall>;
template class Task<BackwardCall>;

}  // namespace fusedrnn::cpu
