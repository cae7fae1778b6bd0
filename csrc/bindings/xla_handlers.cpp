// Handlers for XLA: a forward or a backward pass of a whole network is one call of the core. They
// hold no lock of Python's and no state; the network comes with each call, as attributes, so that a
// compiled or exported program needs nothing else to run.
//
//   runs         the records of its runs (core/network.h), as int64
//   options      compute, memory, padding, training; int64
//   dropout      float64
//   arguments, results  a character a place, '1' where there is an array
//
// Arguments are x, the parameters, the states [runs,B,n], the reset states [runs,n], lengths, mask,
// resets, the seed [2] of uint32; of backward then the reserve, dy, the gradients of states and of
// the states beyond h of every step. Results of forward are y, the states, those beyond h of every
// step of the runs that write y, side by side, and the reserve; of backward the gradients of what
// comes before lengths.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "bindings/place.h"
#include "bindings/register.h"
#include "bindings/run_states.h"
#include "bindings/xla_frame.h"
#include "core/network.h"

namespace fusedrnn::bindings {

namespace {

int32_t narrow(int64_t value) {
  if (value != static_cast<int32_t>(value)) throw_value_error("attribute options: out of range");
  return static_cast<int32_t>(value);
}

Network network_of(const xla::CallFrame& frame, std::span<const int64_t> options, Dtype dtype) {
  const auto records = std::as_bytes(xla::Attribute(frame.attributes, "runs").integers());
  return make_network(records, dtype, narrow(options[0]), narrow(options[1]));
}

// A tensor for each parameter.
struct Parameters {
  Parameters(const Network& network, xla::Places& places)
      : tensors(static_cast<size_t>(network.num_parameters)) {
    for (DLTensor& tensor : tensors) list.push_back(places.next(tensor));
  }

  std::vector<DLTensor> tensors;
  std::vector<DLTensor*> list;
};

// One for each state of the cell: arrays [runs,...].
RunStates states_of(const Network& network, xla::Places& places) {
  RunStates parts(network);
  const auto runs = static_cast<int64_t>(network.runs.size());
  DLTensor whole;
  for (int s = 0; s < network.runs.front().num_states(); ++s) {
    if (places.next(whole) == nullptr) continue;
    if (whole.ndim < 1 || whole.shape[0] != runs) {
      refuse_value("states", "arrays of " + std::to_string(runs) + " runs", shape_text(whole));
    }
    parts.cut_runs(s, whole);
  }
  return parts;
}

// Beyond h of every step, of the runs that write y: arrays [T,B,...].
RunStates sequences_of(const Network& network, xla::Places& places) {
  RunStates parts(network);
  DLTensor whole;
  for (int s = 1; s < network.runs.front().num_states(); ++s) {
    if (places.next(whole) == nullptr) continue;
    const int64_t width = network.runs.front().state_size(s) * count_writing_y(network);
    if (whole.ndim != 3 || whole.shape[2] != width) {
      refuse_value("cells", "width " + std::to_string(width), shape_text(whole));
    }
    parts.cut_columns(s, whole);
  }
  return parts;
}

// A call's device; null: the CPU.
using Device = const xla::CudaDevice*;

uint64_t seed_of(xla::Places& places, Device device) {
  DLTensor tensor{};
  if (places.next(tensor) == nullptr) return 0;
  if (tensor.dtype.code != kDLUInt || tensor.dtype.bits != 32 || tensor.ndim != 1 ||
      tensor.shape[0] != 2) {
    refuse_value("seed", "uint32 numbers of shape (2,)", shape_text(tensor));
  }
  uint32_t words[2];
  if (device != nullptr) {
    device->read(tensor.data, sizeof words, words);
  } else {
    std::memcpy(words, tensor.data, sizeof words);
  }
  return uint64_t{words[0]} << 32 | words[1];
}

// What both passes begin with.
struct Call {
  Call(const xla::CallFrame& frame, Device where)
      : device(where),
        options(options_of(frame)),
        arguments("arguments", frame.arguments, frame.attributes, dlpack_device()),
        results("results", frame.results, frame.attributes, dlpack_device()),
        given_x(arguments.next(x)),
        network(network_of(frame, options, floating_dtype("x", required("x", given_x).dtype))),
        parameters(network, arguments),
        states(states_of(network, arguments)),
        reset_states(states_of(network, arguments)),
        dropout(xla::Attribute(frame.attributes, "dropout").number()) {
    for (size_t i = 0; i < 3; ++i) given[i] = arguments.next(masks[i]);
    seed = seed_of(arguments, device);
  }

  template <class Args>
  Args args() const {
    Args args{};
    args.size = sizeof args;
    args.network = &network;
    args.x = given_x;
    args.parameters = parameters.list.data();
    args.lengths = given[0];
    args.mask = given[1];
    args.resets = given[2];
    args.training = options[3] != 0 ? 1 : 0;
    args.dropout = dropout;
    args.dropout_seed = seed;
    if (device != nullptr) {
      args.stream = device->stream();
      args.allocator = device->allocator();
    }
    return args;
  }

  // A reserve has room for that of any device.
  template <class Args>
  void set_reserve(const DLTensor* room, Args& args) const {
    if (room == nullptr) return;
    const auto size = static_cast<size_t>(element_count(*room) * item_size(*room));
    size_t wanted = size;
    // Of other axes the call will be refused.
    if (room->data != nullptr && x.ndim == 3) {
      throw_on_failure(fusedrnn_reserve_bytes(&network, x.device, x.shape[0], x.shape[1], &wanted));
    }
    args.reserve = room->data;
    args.reserve_bytes = std::min(size, wanted);
  }

  DLDevice dlpack_device() const {
    return device != nullptr ? device->device() : DLDevice{kDLCPU, 0};
  }

  static std::span<const int64_t> options_of(const xla::CallFrame& frame) {
    const xla::Attribute attribute(frame.attributes, "options");
    if (attribute.integers().size() != 4) attribute.refuse("4 numbers");
    return attribute.integers();
  }

  Device device;
  std::span<const int64_t> options;
  xla::Places arguments, results;
  DLTensor x{}, masks[3];
  const DLTensor *given_x, *given[3];
  Network network;
  Parameters parameters;
  RunStates states, reset_states;
  double dropout;
  uint64_t seed = 0;
};

void forward(const xla::CallFrame& frame, Device device) {
  Call call(frame, device);
  call.arguments.finish();
  auto args = call.args<fusedrnn_forward_args>();
  args.states = call.states.list();
  args.reset_states = call.reset_states.list();
  args.padding = narrow(call.options[2]);
  DLTensor y{}, reserve{};
  args.y = call.results.next(y);
  const RunStates states_n = states_of(call.network, call.results);
  const RunStates sequences = sequences_of(call.network, call.results);
  call.set_reserve(call.results.next(reserve), args);
  call.results.finish();
  args.states_n = states_n.list();
  args.state_sequences = sequences.list();
  throw_on_failure(fusedrnn_forward(&args));
}

void backward(const xla::CallFrame& frame, Device device) {
  Call call(frame, device);
  auto args = call.args<fusedrnn_backward_args>();
  DLTensor reserve{}, dy{}, dx{};
  call.set_reserve(call.arguments.next(reserve), args);
  const Network& network = call.network;
  args.dy = call.arguments.next(dy);
  const RunStates dstates_n = states_of(network, call.arguments);
  const RunStates dsequences = sequences_of(network, call.arguments);
  call.arguments.finish();
  args.dstates_n = dstates_n.list();
  args.dstate_sequences = dsequences.list();
  args.dx = call.results.next(dx);
  const Parameters dparameters(network, call.results);
  const RunStates dstates = states_of(network, call.results);
  const RunStates dresets = states_of(network, call.results);
  call.results.finish();
  args.dparameters = dparameters.list.data();
  args.dstates = dstates.list();
  args.dreset_states = dresets.list();
  throw_on_failure(fusedrnn_backward(&args));
}

enum class Platform { cpu, cuda };

template <auto pass, Platform platform>
xla::Error* handle(xla::CallFrame* frame) {
  for (xla::Extension* e = frame->extensions; e != nullptr; e = e->next) {
    if (e->type != xla::kMetadataExtension) continue;
    xla::Metadata& metadata = *reinterpret_cast<xla::MetadataExtension*>(e)->metadata;
    metadata.version.major_version = xla::kMajorVersion;
    metadata.version.minor_version = xla::kMinorVersion;
    metadata.traits = 0;
    return nullptr;
  }
  if (frame->stage != xla::kExecute) return nullptr;
  const fusedrnn_status status = guarded([&] {
    if constexpr (platform == Platform::cpu) return pass(*frame, nullptr);
    const xla::CudaDevice device(*frame);
    pass(*frame, &device);
  });
  if (status == FUSEDRNN_OK) return nullptr;
  return xla::make_error(*frame->api, status, fusedrnn_last_error());
}

template <Platform platform>
py::dict handlers_of() {
  const auto capsule = [](auto* handler) {
    return py::capsule(reinterpret_cast<void*>(handler), "xla._CUSTOM_CALL_TARGET");
  };
  return py::dict(py::arg("fusedrnn_forward") = capsule(&handle<&forward, platform>),
                  py::arg("fusedrnn_backward") = capsule(&handle<&backward, platform>));
}

py::dict handlers() {
  return py::dict(py::arg("cpu") = handlers_of<Platform::cpu>(),
                  py::arg("CUDA") = handlers_of<Platform::cuda>());
}

}  // namespace

void register_xla_handlers(py::module_& m) {
  m.def("xla_handlers", &handlers,
        "Handlers for XLA's foreign function interface, by platform and by the names of their "
        "targets.");
}

}  // namespace fusedrnn::bindings
