// The C ABI.
#include <algorithm>
#include <string>

#include "core/error.h"
#include "core/frozen.h"
#include "core/memory.h"
#include "core/model_file.h"
#include "core/network.h"
#include "core/reserve.h"
#include "core/run_network.h"
#include "core/tensor.h"
#include "core/validate.h"
#include "cpu/threads/pool.h"
#include "fusedrnn/fusedrnn.h"

using namespace fusedrnn;  // this file is its outer side

namespace {

void check_index(int32_t index, int count) {
  if (index >= 0 && index < count) return;
  refuse_value("index", "0 to " + std::to_string(count - 1), index);
}

fusedrnn_array_info info_of(const Network& network, const Run& run, const char* name, bool optional,
                            const Shape& shape) {
  fusedrnn_array_info info{name, network.number_of(run), optional, shape.rank(), {}};
  std::copy(shape.begin(), shape.end(), info.shape);
  return info;
}

bool is_aligned(const void* p, uintptr_t unit) {
  return reinterpret_cast<uintptr_t>(p) % unit == 0;
}

// Null where it is a step; else a literal that says why it is none.
const char* why_no_step(const fusedrnn_frozen* frozen, const NetworkStep& step,
                        const void* workspace) {
  constexpr uintptr_t kWorkspaceAlignment = 64;
  if (frozen == nullptr) return "frozen: expected an address, got null";
  if (!frozen->takes_steps)
    return "frozen: expected layers in the forward direction to take a step";
  const auto item = static_cast<uintptr_t>(item_size(frozen->network.dtype));
  if (step.B < 0) return "batch: expected at least 0, got a negative number";
  if (step.x == nullptr) return "x: expected an address, got null";
  if (!is_aligned(step.x, item)) return "x: expected an address aligned to its elements";
  if (step.next == nullptr) return "next_states: expected an address, got null";
  for (int s = 0; s < frozen->network.num_states; ++s) {
    if (step.prev != nullptr && !is_aligned(step.prev[s], item)) {
      return "prev_states: expected addresses aligned to their elements";
    }
    if (step.next[s] == nullptr) return "next_states: expected an address of each state, got null";
    if (!is_aligned(step.next[s], item)) {
      return "next_states: expected addresses aligned to their elements";
    }
  }
  if (workspace == nullptr) return "workspace: expected an address, got null";
  if (!is_aligned(workspace, kWorkspaceAlignment)) {
    return "workspace: expected an address aligned to 64 bytes";
  }
  return nullptr;
}

}  // namespace

extern "C" {

fusedrnn_status fusedrnn_network_create(const fusedrnn_network_args* args,
                                        fusedrnn_network** network) {
  return guarded([&] {
    not_null("args", args);
    not_null("network", network);
    check_size("fusedrnn_network_args", *args);
    const Dtype dtype = floating_dtype("dtype", args->dtype);
    *network =
        new Network(make_network(args->runs, args->num_runs, dtype, args->compute, args->memory));
  });
}

void fusedrnn_network_free(fusedrnn_network* network) { delete network; }

fusedrnn_status fusedrnn_network_describe(const fusedrnn_network* network,
                                          fusedrnn_network_info* info) {
  return guarded([&] {
    const fusedrnn_network& n = not_null("network", network);
    not_null("info", info);
    *info = {static_cast<int32_t>(n.runs.size()),
             n.num_parameters,
             n.num_states,
             n.input_size(),
             n.output_size(),
             dtype_info(n.dtype).dlpack,
             static_cast<int32_t>(n.compute)};
  });
}

fusedrnn_status fusedrnn_network_parameter(const fusedrnn_network* network, int32_t index,
                                           fusedrnn_array_info* info) {
  return guarded([&] {
    not_null("info", info);
    check_index(index, not_null("network", network).num_parameters);
    network->for_parameters([&](const Run& run, int i, int number) {
      if (number != index) return;
      const auto& [name, rows, columns, optional] = run.parameter(i);
      *info = info_of(*network, run, name, optional, run.parameter_shape(i));
    });
  });
}

fusedrnn_status fusedrnn_network_state(const fusedrnn_network* network, int32_t index,
                                       fusedrnn_array_info* info) {
  return guarded([&] {
    not_null("info", info);
    check_index(index, not_null("network", network).num_states);
    network->for_states([&](const Run& run, int s, int number) {
      if (number != index) return;
      *info = info_of(*network, run, run.state(s).name, true, {run.state_size(s)});
    });
  });
}

fusedrnn_status fusedrnn_reserve_bytes(const fusedrnn_network* network, DLDevice device,
                                       int64_t steps, int64_t batch, size_t* bytes) {
  return guarded([&] {
    not_null("bytes", bytes);
    const fusedrnn_network& n = not_null("network", network);
    if (steps < 0 || batch < 0 || !steps_fit(n, steps, batch)) {
      refuse_value("steps, batch", "at least 0, and fewer than memory can name",
                   std::to_string(steps) + ", " + std::to_string(batch));
    }
    check_usable_device("device", device);
    check_compute(n, device, false);
    *bytes = reserve_bytes(n, device, steps, batch);
  });
}

fusedrnn_status fusedrnn_forward(const fusedrnn_forward_args* args) {
  return guarded([&] {
    const fusedrnn_network& network = not_null("network", not_null("args", args).network);
    check_forward(network, *args, Layout::dense);
    run_forward(network, *args, nullptr);
  });
}

fusedrnn_status fusedrnn_backward(const fusedrnn_backward_args* args) {
  return guarded([&] {
    const fusedrnn_network& network = not_null("network", not_null("args", args).network);
    check_backward(network, *args, Layout::dense);
    run_backward(network, *args);
  });
}

const char* fusedrnn_network_gate(const fusedrnn_network* network, int32_t run, int32_t index) {
  if (network == nullptr || run < 0 || index < 0) return nullptr;
  if (static_cast<size_t>(run) >= network->runs.size()) return nullptr;
  const auto gates = network->runs[static_cast<size_t>(run)].cell->gates;
  return static_cast<size_t>(index) < gates.size() ? gates[static_cast<size_t>(index)] : nullptr;
}

fusedrnn_status fusedrnn_reserve_gates(const fusedrnn_gates_args* args) {
  return guarded([&] {
    const fusedrnn_network& network = not_null("network", not_null("args", args).network);
    check_gates(network, *args);
    read_gates(network, *args);
  });
}

fusedrnn_status fusedrnn_freeze(const fusedrnn_network* network, const DLTensor* const* parameters,
                                fusedrnn_frozen** frozen) {
  return guarded([&] {
    not_null("network", network);
    not_null("frozen", frozen);
    check_parameters_to_freeze(*network, parameters, Layout::dense);
    *frozen = freeze(*network, parameters).release();
  });
}

void fusedrnn_frozen_free(fusedrnn_frozen* frozen) { delete frozen; }

const fusedrnn_network* fusedrnn_frozen_network(const fusedrnn_frozen* frozen) {
  return frozen == nullptr ? nullptr : &frozen->network;
}

fusedrnn_status fusedrnn_frozen_save(const fusedrnn_frozen* frozen, const char* path) {
  return guarded([&] {
    not_null("frozen", frozen);
    not_null("path", path);
    model_file::save(*frozen, path);
  });
}

fusedrnn_status fusedrnn_frozen_load(const char* path, fusedrnn_frozen** frozen) {
  return guarded([&] {
    not_null("path", path);
    not_null("frozen", frozen);
    *frozen = model_file::load(path).release();
  });
}

fusedrnn_status fusedrnn_frozen_read(const void* bytes, size_t size, fusedrnn_frozen** frozen) {
  return guarded([&] {
    check_address("bytes", bytes);
    not_null("frozen", frozen);
    *frozen = model_file::read("bytes", bytes, size).release();
  });
}

fusedrnn_status fusedrnn_frozen_forward(const fusedrnn_frozen* frozen,
                                        const fusedrnn_forward_args* args) {
  return guarded([&] {
    const Network& network = not_null("frozen", frozen).network;
    check_forward(network, not_null("args", args), Layout::dense, true);
    run_forward(network, *args, frozen);
  });
}

size_t fusedrnn_frozen_workspace(const fusedrnn_frozen* frozen, int64_t batch) {
  size_t bytes = 0;
  guarded([&] { bytes = step_workspace(not_null("frozen", frozen), batch); });
  return bytes;
}

fusedrnn_status fusedrnn_frozen_step(const fusedrnn_frozen* frozen, int64_t batch, const void* x,
                                     const void* const* prev_states, void* const* next_states,
                                     void* workspace) {
  const NetworkStep step{batch, x, prev_states, next_states};
  const char* const why = why_no_step(frozen, step, workspace);
  if (why != nullptr) return fail(FUSEDRNN_INVALID_VALUE, why);
  if (batch > 0) step_alone(*frozen, step, workspace);
  return FUSEDRNN_OK;
}

const char* fusedrnn_last_error(void) { return last_error(); }

const char* fusedrnn_version(void) { return FUSEDRNN_VERSION; }

int32_t fusedrnn_abi_version(void) { return FUSEDRNN_ABI_VERSION; }

fusedrnn_status fusedrnn_set_num_threads(int32_t n) {
  return guarded([&] { cpu::set_num_threads(n); });
}

int32_t fusedrnn_get_num_threads(void) {
  int32_t n = 0;
  guarded([&] { n = cpu::get_num_threads(); });
  return n;
}

size_t fusedrnn_release_memory(void) { return release_memory(); }

}  // extern "C"
