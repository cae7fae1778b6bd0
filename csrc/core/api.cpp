// The C ABI.
#include <memory>
#include <string>
#include <utility>

#include "core/dtype.h"
#include "core/frozen.h"
#include "core/guarded.h"
#include "core/run_network.h"
#include "core/system.h"
#include "core/tensor.h"
#include "core/validate.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {
namespace {

void create(const fusedrnn_network_args& args, fusedrnn_network** network) {
  not_null("network", network);
  if (args.size != sizeof args) {
    throw_value_error(expected("fusedrnn_network_args",
                               "size = " + std::to_string(sizeof args) + " (its sizeof)",
                               std::to_string(args.size)));
  }
  if (args.reserved != 0)
    throw_value_error(expected("reserved", "0", std::to_string(args.reserved)));
  const DtypeInfo* dtype = find_dtype(args.dtype);
  if (dtype == nullptr) throw_wrong_dtype("dtype", ElementKind::floating, dtype_name(args.dtype));
  *network =
      std::make_unique<Network>(make_network(args.runs, args.num_runs, dtype->dtype, args.compute))
          .release();
}

void check_index(int32_t index, int count) {
  if (index >= 0 && index < count) return;
  throw_value_error(expected("index", "0 to " + std::to_string(count - 1), std::to_string(index)));
}

void describe_parameter(const Network& network, int32_t index, fusedrnn_array_info& info) {
  check_index(index, network.num_parameters);
  network.for_parameters([&](const Run& run, int i, int number) {
    if (number != index) return;
    const cells::Parameter& parameter = run.cell->parameters[static_cast<size_t>(i)];
    const Shape shape = run.parameter_shape(i);
    info = {parameter.name,
            static_cast<int32_t>(&run - network.runs.data()),
            parameter.optional,
            shape.rank(),
            {}};
    for (int axis = 0; axis < shape.rank(); ++axis) info.shape[axis] = shape.begin()[axis];
  });
}

void describe_state(const Network& network, int32_t index, fusedrnn_array_info& info) {
  check_index(index, network.num_states);
  network.for_states([&](const Run& run, int s, int number) {
    if (number != index) return;
    info = {run.cell->states[static_cast<size_t>(s)].name,
            static_cast<int32_t>(&run - network.runs.data()),
            1,
            1,
            {run.state_size(s), 0}};
  });
}

void freeze(const Network& network, const DLTensor* const* parameters, fusedrnn_frozen** result) {
  not_null("frozen", result);
  check_parameters_to_freeze(network, parameters, Layout::dense);
  auto frozen = std::make_unique<fusedrnn_frozen>();
  frozen->network = network;
  for (const Run& run : frozen->network.runs) {
    FreezeCall call;
    call.problem = run.problem;
    for (int i = 0; i < run.num_parameters(); ++i) {
      const DLTensor* t = parameters[run.first_parameter + i];
      if (t != nullptr) call.parameters[i] = {data_of(*t), stride_of(*t, 0)};
    }
    frozen->packed.push_back(cpu::freeze(call));
  }
  *result = frozen.release();
}

bool is_aligned(const void* p, uintptr_t unit) {
  return reinterpret_cast<uintptr_t>(p) % unit == 0;
}

bool is_step(const fusedrnn_frozen& frozen, const NetworkStep& step, const void* workspace) {
  constexpr uintptr_t kWorkspaceAlignment = 64;
  const auto item = static_cast<uintptr_t>(item_size(frozen.network.dtype));
  bool good = step.B >= 0 && step.x != nullptr && is_aligned(step.x, item) &&
              step.next != nullptr && workspace != nullptr &&
              is_aligned(workspace, kWorkspaceAlignment);
  for (int s = 0; good && s < frozen.network.num_states; ++s) {
    good = step.next[s] != nullptr && is_aligned(step.next[s], item) &&
           (step.prev == nullptr || is_aligned(step.prev[s], item));
  }
  return good;
}

}  // namespace
}  // namespace fusedrnn

using fusedrnn::guarded;
using fusedrnn::not_null;

extern "C" {

fusedrnn_status fusedrnn_network_create(const fusedrnn_network_args* args,
                                        fusedrnn_network** network) {
  return guarded([&] { fusedrnn::create(not_null("args", args), network); });
}

void fusedrnn_network_free(fusedrnn_network* network) { delete network; }

fusedrnn_status fusedrnn_network_describe(const fusedrnn_network* network,
                                          fusedrnn_network_info* info) {
  return guarded([&] {
    const fusedrnn_network& n = not_null("network", network);
    not_null("info", info);
    *info = {static_cast<int32_t>(n.runs.size()), n.num_parameters, n.num_states, n.input_size(),
             n.output_size()};
  });
}

fusedrnn_status fusedrnn_network_parameter(const fusedrnn_network* network, int32_t index,
                                           fusedrnn_array_info* info) {
  return guarded([&] {
    not_null("info", info);
    fusedrnn::describe_parameter(not_null("network", network), index, *info);
  });
}

fusedrnn_status fusedrnn_network_state(const fusedrnn_network* network, int32_t index,
                                       fusedrnn_array_info* info) {
  return guarded([&] {
    not_null("info", info);
    fusedrnn::describe_state(not_null("network", network), index, *info);
  });
}

fusedrnn_status fusedrnn_reserve_bytes(const fusedrnn_network* network, DLDevice device,
                                       int64_t steps, int64_t batch, size_t* bytes) {
  return guarded([&] {
    not_null("bytes", bytes);
    const fusedrnn_network& n = not_null("network", network);
    if (steps < 0 || batch < 0 || !fusedrnn::steps_fit(n, steps, batch)) {
      fusedrnn::throw_value_error(
          fusedrnn::expected("steps, batch", "at least 0, and fewer than memory can name",
                             std::to_string(steps) + ", " + std::to_string(batch)));
    }
    fusedrnn::check_usable_device("device", device);
    *bytes = fusedrnn::reserve_bytes(n, device, steps, batch);
  });
}

fusedrnn_status fusedrnn_forward(const fusedrnn_forward_args* args) {
  return guarded([&] {
    const fusedrnn_network& network = not_null("network", not_null("args", args).network);
    fusedrnn::check_forward(network, *args);
    fusedrnn::check_reserve(network, *args);
    fusedrnn::run_forward(network, *args, nullptr);
  });
}

fusedrnn_status fusedrnn_backward(const fusedrnn_backward_args* args) {
  return guarded([&] {
    const fusedrnn_network& network = not_null("network", not_null("args", args).network);
    fusedrnn::check_backward(network, *args);
    fusedrnn::check_reserve(network, *args);
    fusedrnn::run_backward(network, *args);
  });
}

fusedrnn_status fusedrnn_freeze(const fusedrnn_network* network, const DLTensor* const* parameters,
                                fusedrnn_frozen** frozen) {
  return guarded([&] { fusedrnn::freeze(not_null("network", network), parameters, frozen); });
}

void fusedrnn_frozen_free(fusedrnn_frozen* frozen) { delete frozen; }

fusedrnn_status fusedrnn_frozen_forward(const fusedrnn_frozen* frozen,
                                        const fusedrnn_forward_args* args) {
  return guarded([&] {
    const fusedrnn::Network& network = not_null("frozen", frozen).network;
    fusedrnn::check_forward(network, not_null("args", args), true);
    fusedrnn::run_forward(network, *args, frozen);
  });
}

size_t fusedrnn_frozen_workspace(const fusedrnn_frozen* frozen, int64_t batch) {
  size_t bytes = 0;
  guarded([&] {
    fusedrnn::check_batch(not_null("frozen", frozen).network, batch);
    bytes = fusedrnn::step_workspace(*frozen, batch);
  });
  return bytes;
}

fusedrnn_status fusedrnn_frozen_step(const fusedrnn_frozen* frozen, int64_t batch, const void* x,
                                     const void* const* prev_states, void* const* next_states,
                                     void* workspace) {
  const fusedrnn::NetworkStep step{batch, x, prev_states, next_states};
  if (frozen == nullptr || !fusedrnn::is_step(*frozen, step, workspace))
    return FUSEDRNN_INVALID_VALUE;
  if (batch > 0) fusedrnn::step_alone(*frozen, step, workspace);
  return FUSEDRNN_OK;
}

const char* fusedrnn_last_error(void) { return fusedrnn::last_error(); }

const char* fusedrnn_version(void) { return FUSEDRNN_VERSION; }

int32_t fusedrnn_abi_version(void) { return FUSEDRNN_ABI_VERSION; }

fusedrnn_status fusedrnn_set_num_threads(int32_t n) {
  return guarded([&] { fusedrnn::set_num_threads(n); });
}

int32_t fusedrnn_get_num_threads(void) {
  int32_t n = 0;
  guarded([&] { n = fusedrnn::get_num_threads(); });
  return n;
}

}  // extern "C"
