#include "core/frozen.h"

#include <algorithm>
#include <string>

#include "core/tensor.h"
#include "cpu/threads/pool.h"

namespace fusedrnn {
namespace {

// Steps that read fewer bytes of weights for all their sequences are over in 1 or 2 microseconds,
// in which nothing can be shared out.
constexpr int64_t kThreadedBytes = int64_t{1} << 18;

constexpr size_t kSmallestWorkspace = 64;

// Numbers of the matrices.
int64_t weights_of(const Run& run) {
  int64_t sum = 0;
  for (const auto& [name, rows, columns, optional] : run.cell->parameters) {
    if (columns.letter != 0) sum += run.extent(rows) * run.extent(columns);
  }
  return sum;
}

// Whether the layer's steps may be worth a team, where there is one.
bool is_large(const Run& run, int64_t B) {
  return weights_of(run) * weight_bytes(run.problem) * B > kThreadedBytes;
}

// Calls take_one(layer number, its step) from the first to the last.
template <class TakeOne>
void for_layers(const fusedrnn_frozen& frozen, const NetworkStep& step, const TakeOne& take_one) {
  StepCall call;
  call.B = step.B;
  call.x = step.x;
  for (size_t k = 0; k < frozen.packed.size(); ++k) {
    const Run& run = frozen.network.runs[k];
    for (int s = 0; s < run.num_states(); ++s) {
      if (step.prev != nullptr) call.prev[s] = step.prev[run.first_state + s];
      call.next[s] = step.next[run.first_state + s];
    }
    take_one(k, call);
    call.x = call.next[0];
  }
}

}  // namespace

std::unique_ptr<fusedrnn_frozen> freeze(const Network& network, const DLTensor* const* parameters) {
  auto frozen = std::make_unique<fusedrnn_frozen>();
  frozen->network = network;
  frozen->takes_steps = is_plain_stack(network);
  for (const Run& run : network.runs) {
    FreezeCall call;
    call.problem = run.problem;
    to_matrices(call.parameters, parameters, run.first_parameter, run.num_parameters());
    frozen->packed.push_back(cpu::freeze(call));
  }
  return frozen;
}

int64_t step_work(const Network& network) {
  int64_t sum = 0;
  for (const Run& run : network.runs) sum += weights_of(run);
  return sum;
}

size_t step_workspace(const fusedrnn_frozen& frozen, int64_t B) {
  if (B < 0) refuse_value("batch", "at least 0", B);
  if (!steps_fit(frozen.network, 1, B)) refuse_value("batch", "fewer sequences", B);
  if (!frozen.takes_steps) {
    throw_value_error(
        "frozen: expected layers in the forward direction, each on the one before, to take a step");
  }
  size_t bytes = kSmallestWorkspace;
  for (const cpu::PackedPointer& packed : frozen.packed) {
    bytes = std::max(bytes, cpu::step_workspace(*packed, B));
  }
  return bytes;
}

void step_alone(const fusedrnn_frozen& frozen, const NetworkStep& step, void* workspace) noexcept {
  for_layers(frozen, step, [&](size_t k, const StepCall& call) {
    cpu::step(*frozen.packed[k], call, workspace);
  });
}

FrozenSteps::FrozenSteps(const fusedrnn_frozen& frozen, int64_t B)
    : frozen_(frozen), batch_(B), workspace_(step_workspace(frozen, B)) {
  for (size_t k = 0; k < frozen.packed.size(); ++k) {
    const cpu::Packed& packed = *frozen.packed[k];
    layers_.push_back(cpu::prepare_step(packed, B, workspace_.data()));
    teams_.push_back(is_large(frozen.network.runs[k], B) ? cpu::prepare_team_steps(packed, B)
                                                         : nullptr);
  }
}

void FrozenSteps::take(const NetworkStep& step) const {
  const bool teams = cpu::get_num_threads() > 1;
  for_layers(frozen_, step, [&](size_t k, const StepCall& call) {
    if (teams && teams_[k] != nullptr) {
      cpu::take(*teams_[k], call, *layers_[k]);
    } else {
      cpu::take(*layers_[k], call);
    }
  });
}

}  // namespace fusedrnn
