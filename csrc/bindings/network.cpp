// Network, and run: forward passes.
#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <utility>

#include "bindings/arguments.h"
#include "bindings/gil.h"
#include "bindings/register.h"
#include "bindings/tape.h"
#include "core/error.h"
#include "core/run_network.h"
#include "core/tensor.h"
#include "core/validate.h"

namespace fusedrnn::bindings {
namespace {

const CellTable& cell_argument(py::handle object) {
  const std::string name = str_argument("cell", object);
  const CellTable* cell = find_cell(name);
  if (cell == nullptr)
    throw_value_error(expected("cell", "one of " + cell_names(), "'" + name + "'"));
  return *cell;
}

// (cell, reverse, reads, writes, read_offset, write_offset, input_size, hidden_size)
fusedrnn_run run_argument(py::handle object) {
  const auto fields = py::cast<py::tuple>(object);
  if (fields.size() != 8)
    throw_value_error(expected("runs", "8 fields", std::to_string(fields.size())));
  const auto number = [&](size_t i) { return int_argument("runs", fields[i]); };
  fusedrnn_run run{};
  run.cell = cell_argument(fields[0]).name;
  run.reverse = bool_argument("runs", fields[1]) ? 1 : 0;
  run.reads = static_cast<int32_t>(number(2));
  run.writes = static_cast<int32_t>(number(3));
  run.read_offset = number(4);
  run.write_offset = number(5);
  run.input_size = number(6);
  run.hidden_size = number(7);
  return run;
}

NetworkPointer make(const py::list& runs, py::handle dtype_object, py::handle compute_dtype,
                    bool on_cuda) {
  const Dtype dtype = dtype_argument(dtype_object);
  std::vector<fusedrnn_run> described;
  for (const py::handle run : runs) described.push_back(run_argument(run));
  return std::make_shared<const Network>(
      make_network(described.data(), static_cast<int>(described.size()), dtype,
                   compute_argument(compute_dtype, dtype, on_cuda)));
}

py::list describe_parameters(const Network& network) {
  py::list result;
  network.for_parameters([&](const Run& run, int i, int) {
    const cells::Parameter& parameter = run.cell->parameters[static_cast<size_t>(i)];
    const Shape shape = run.parameter_shape(i);
    py::tuple extents(shape.rank());
    for (int axis = 0; axis < shape.rank(); ++axis)
      extents[static_cast<size_t>(axis)] = shape.begin()[axis];
    result.append(py::make_tuple(static_cast<int>(&run - network.runs.data()), parameter.name,
                                 extents, parameter.optional));
  });
  return result;
}

py::tuple forward(const NetworkPointer& network, py::handle x, py::handle parameters,
                  py::handle states, py::handle lengths, py::handle resets, bool save, py::handle y,
                  py::handle states_n) {
  auto inputs =
      std::make_unique<PassInputs>(x, parameters, parameter_names(*network), lengths, resets);
  return forward_pass(network, std::move(inputs), true, states, save, y, states_n);
}

// The network of the last call, for the next: with the GIL held.
constinit NetworkPointer last_network;

NetworkPointer network_of(const fusedrnn_run& run, Dtype dtype, int32_t compute) {
  if (last_network) {
    const Run& last = last_network->runs.front();
    const Problem& p = last.problem;
    if (run.cell == last.cell->name && (run.reverse != 0) == p.reverse && run.input_size == p.I &&
        run.hidden_size == p.H && (run.projection_size == 0 || run.projection_size == p.P) &&
        dtype == p.dtype && static_cast<Compute>(compute) == p.compute) {
      return last_network;
    }
  }
  last_network = std::make_shared<const Network>(make_network(&run, 1, dtype, compute));
  return last_network;
}

py::tuple run(py::handle cell_object, py::handle x, py::handle parameters, py::handle states,
              py::handle lengths, py::handle resets, py::handle reverse, py::handle compute_dtype,
              py::handle save, py::handle y, py::handle states_n) {
  const CellTable& cell = cell_argument(cell_object);
  const bool reversed = bool_argument("reverse", reverse), saved = bool_argument("save", save);
  std::vector<Name> names;
  names.reserve(cell.parameters.size());
  for (const cells::Parameter& parameter : cell.parameters) names.emplace_back(parameter.name);
  auto inputs = std::make_unique<PassInputs>(x, parameters, names, lengths, resets);
  fusedrnn_run described = infer_run(cell, inputs->x(), inputs->parameters());
  described.reverse = reversed ? 1 : 0;
  const Dtype dtype = floating_dtype("x", *inputs->x());
  const int32_t compute = compute_argument(compute_dtype, dtype, inputs->place().on_cuda());
  return forward_pass(network_of(described, dtype, compute), std::move(inputs), false, states,
                      saved, y, states_n);
}

}  // namespace

std::vector<Name> parameter_names(const Network& network) {
  std::vector<Name> names;
  names.reserve(static_cast<size_t>(network.num_parameters));
  network.for_parameters([&](const Run& run, int i, int) {
    names.emplace_back("", run.cell->parameters[static_cast<size_t>(i)].name, "",
                       network.named(run));
  });
  return names;
}

py::tuple forward_pass(NetworkPointer network, std::unique_ptr<PassInputs> inputs, bool stacked,
                       py::handle states, bool save, py::handle y_object,
                       py::handle states_n_object, const fusedrnn_frozen* frozen) {
  Place place = inputs->place();
  StateInputs state_0(*network, stacked, {"", "0", "state"}, states, &place);
  fusedrnn_forward_args args{};
  args.size = sizeof args;
  const auto describe_inputs = [&] {
    args.network = frozen == nullptr ? network.get() : nullptr;
    args.x = inputs->x();
    args.parameters = frozen == nullptr ? inputs->parameters() : nullptr;
    args.states = state_0.list();
    args.lengths = inputs->lengths();
    args.resets = inputs->resets();
  };
  describe_inputs();
  // A GPU's stream and allocator are named once core has accepted what they serve.
  check_forward_inputs(*network, args, Layout::any, frozen != nullptr);
  inputs->make_readable();
  state_0.make_readable();
  describe_inputs();

  const int64_t T = args.x->shape[0], B = args.x->shape[1];
  OutputArray y(stacked ? "out[0]" : "y", y_object, network->dtype, {T, B, network->output_size()},
                &place);
  StateOutputs state_n(*network, stacked, {"", "_n", "out[1]"}, B, states_n_object, &place);
  args.y = y.tensor();
  args.states_n = state_n.list();
  // What a call leaves on a device refers to it until the tape is gone.
  std::shared_ptr<CudaMemory> memory = memory_of(place);
  std::unique_ptr<Reserve> reserve;
  if (save) {
    reserve = std::make_unique<Reserve>(*network, T, B, place, memory);
    args.reserve = reserve->data();
    args.reserve_bytes = reserve->bytes();
  }
  if (place.on_cuda()) {
    args.allocator = memory ? memory->allocator() : nullptr;
    args.stream = place.stream();
  }
  fusedrnn_status status = FUSEDRNN_OK;
  {
    const ReleasedGil no_gil;
    status = frozen == nullptr ? fusedrnn_forward(&args) : fusedrnn_frozen_forward(frozen, &args);
  }
  throw_on_failure(status, memory.get());
  if (reserve) reserve->leave(place);
  const py::tuple results = state_n.arrays();
  if (place.on_cuda()) {
    const py::tuple read = py::make_tuple(inputs->owners(), state_0.owners());
    keep_inputs(y.array(), read);
    keep_inputs(results, read);
  }
  py::object tape = py::none();
  if (save) {
    inputs->release_masks();
    tape = py::cast(std::make_unique<Tape>(
        Tape{std::move(network), stacked, std::move(inputs), std::move(reserve)}));
  }
  return py::make_tuple(y.array(), results, tape);
}

void register_network(py::module_& m) {
  py::class_<Network, std::shared_ptr<Network>>(m, "Network", py::is_final(),
                                                "Runs of cells, one after the other; immutable.")
      .def(py::init(
               [](const py::list& runs, py::handle dtype, py::handle compute_dtype, bool on_cuda) {
                 return std::const_pointer_cast<Network>(make(runs, dtype, compute_dtype, on_cuda));
               }),
           py::arg("runs"), py::arg("dtype"), py::arg("compute_dtype") = py::none(),
           py::arg("on_cuda") = false,
           "runs: tuples of (cell, reverse, reads, writes, read_offset, write_offset, input_size, "
           "hidden_size), as in fusedrnn.h.")
      .def_property_readonly("parameters", &describe_parameters,
                             "(run, name, shape, optional) of each.")
      .def_property_readonly("input_size", &Network::input_size)
      .def_property_readonly("output_size", &Network::output_size)
      .def(
          "reserve_bytes",
          [](const Network& network, int64_t T, int64_t B) {
            size_t bytes = 0;
            throw_on_failure(fusedrnn_reserve_bytes(&network, {kDLCPU, 0}, T, B, &bytes));
            return bytes;
          },
          py::arg("steps"), py::arg("batch"),
          "Bytes that a forward pass on the CPU leaves for its gradients.")
      .def("forward", &forward, py::arg("x"), py::arg("parameters"), py::arg("states") = py::none(),
           py::arg("lengths") = py::none(), py::arg("resets") = py::none(), py::arg("save") = false,
           py::arg("y") = py::none(), py::arg("states_n") = py::none(),
           "(y, states, Tape or None); states are arrays [runs, B, n], one for each state of the "
           "cell.");
  m.def(
      "run", &run, py::arg("cell"), py::arg("x"), py::arg("parameters"), py::arg("states"),
      py::arg("lengths"), py::arg("resets"), py::arg("reverse"), py::arg("compute_dtype"),
      py::arg("save"), py::arg("y") = py::none(), py::arg("states_n") = py::none(),
      "The same of a network of one run, whose sizes are those of the arrays; states are [B, n].");
}

}  // namespace fusedrnn::bindings
