// Network, and run: forward passes of layers and of functions.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/fast_function.h"
#include "bindings/pass.h"
#include "bindings/register.h"
#include "core/error.h"
#include "core/reserve.h"
#include "core/tensor.h"
#include "core/validate.h"

namespace fusedrnn::bindings {
namespace {

int32_t memory_argument(bool lean) { return lean ? FUSEDRNN_MEMORY_LEAN : FUSEDRNN_MEMORY_DEFAULT; }

std::shared_ptr<Network> make(const py::bytes& runs, py::handle dtype_object,
                              py::handle compute_dtype, bool on_cuda, bool lean) {
  Dtype dtype = dtype_argument(dtype_object);
  int32_t compute = FUSEDRNN_COMPUTE_SAME;
  if (means_dual(compute_dtype)) {
    dtype = dtype == Dtype::float64 ? Dtype::dual64 : Dtype::dual32;
  } else {
    compute = compute_argument(compute_dtype, dtype, on_cuda);
  }
  const auto records = std::as_bytes(std::span(std::string_view(runs)));
  return std::make_shared<Network>(make_network(records, dtype, compute, memory_argument(lean)));
}

py::list describe_parameters(const Network& network) {
  py::list result;
  network.for_parameters([&](const Run& run, int i, int) {
    const cells::Parameter& parameter = run.parameter(i);
    const Shape shape = run.parameter_shape(i);
    result.append(py::make_tuple(network.number_of(run), parameter.name, tuple_of(shape, as_it_is),
                                 parameter.optional));
  });
  return result;
}

// What make() was given, with all constants.
py::bytes records_of(const Network& network) {
  std::vector<RunRecord> records;
  for (const Run& run : network.runs) records.push_back(record_of(run));
  return {reinterpret_cast<const char*>(records.data()), records.size() * sizeof(RunRecord)};
}

size_t reserve_bytes_of(const Network& network, int64_t T, int64_t B,
                        std::optional<int32_t> cuda_device) {
  const DLDevice device{cuda_device ? kDLCUDA : kDLCPU, cuda_device.value_or(0)};
  size_t bytes = 0;
  throw_on_failure(fusedrnn_reserve_bytes(&network, device, T, B, &bytes));
  return bytes;
}

py::tuple reserve_bytes_of_any(const Network& network, int64_t T, int64_t B) {
  reserve_bytes_of(network, T, B, std::nullopt);  // checks the two
  return py::make_tuple(reserve_bytes_anywhere(network, T, B), cuda_reserve_bytes(network, T, B));
}

py::tuple forward_layers(const std::shared_ptr<Network>& network, py::handle x,
                         py::handle parameters, py::handle states, py::handle masks, bool save,
                         py::handle y, py::handle states_n, py::handle sequences,
                         py::handle dropout, py::handle reserve) {
  if (!save && !reserve.is_none()) refuse_value("reserve", "None with save=False", "an array");
  auto inputs = std::make_unique<PassInputs>(x, parameters, parameter_names(*network), masks);
  inputs->dropout = dropout_argument(dropout);
  return forward_pass(network, std::move(inputs), true, states, save, y, states_n, sequences,
                      nullptr, reserve);
}

// The network of the last call, for the next: with the GIL held.
constinit NetworkPointer last_network;

bool is_of(const Network& network, const fusedrnn_run& run) {
  const Run& first = network.runs.front();
  const RunRecord own = record_of(first);
  return run.cell == first.cell->name && size_fields(run) == size_fields(own) &&
         std::equal(own.constants, own.constants + own.num_constants, run.constants,
                    run.constants + run.num_constants);
}

NetworkPointer network_of(const fusedrnn_run& run, Dtype dtype, int32_t compute, bool lean) {
  const bool fits = last_network && dtype == last_network->dtype &&
                    static_cast<Compute>(compute) == last_network->compute &&
                    lean == last_network->lean && is_of(*last_network, run);
  if (!fits) {
    last_network = std::make_shared<const Network>(
        make_network(&run, 1, dtype, compute, memory_argument(lean)));
  }
  return last_network;
}

// One run whose sizes are those of the arrays: what functions call.
struct FunctionCall {
  static constexpr const char* kName = "run";
  static constexpr Py_ssize_t kFewestArguments = 14, kArguments = 14;

  py::object call(PyObject* const* arguments) const {
    const auto& [cell_name, x, parameters, states, masks, reverse, compute_dtype, save, y, states_n,
                 sequences, constants, lean, heads_object] =
        reinterpret_cast<PyObject* const(&)[kArguments]>(*arguments);
    const CellTable& cell = known_cell(str_argument("cell", cell_name).c_str());
    std::vector<Name> names;
    names.reserve(cell.parameters.size());
    for (const cells::Parameter& parameter : cell.parameters) names.emplace_back(parameter.name);
    auto inputs = std::make_unique<PassInputs>(x, parameters, names, masks);
    const bool dual = means_dual(compute_dtype);
    const int64_t heads = int_argument("heads", heads_object);
    if (heads < 1) refuse_value("heads", "at least 1", heads);
    fusedrnn_run given =
        infer_run(cell, inputs->x.tensor(), inputs->parameters.tensors(), dual, heads);
    given.reverse = bool_argument("reverse", reverse) ? 1 : 0;
    const auto numbers = py::cast<std::vector<double>>(py::handle(constants));
    given.num_constants = static_cast<int32_t>(numbers.size());
    if (!numbers.empty()) given.constants = numbers.data();
    const Dtype dtype = floating_dtype("x", inputs->x.tensor()->dtype);
    const int32_t compute = compute_argument(dual ? py::none() : py::handle(compute_dtype), dtype,
                                             inputs->place.on_cuda());
    return forward_pass(network_of(given, dtype, compute, bool_argument("lean", lean)),
                        std::move(inputs), false, states, bool_argument("save", save), y, states_n,
                        sequences);
  }
};

}  // namespace

void register_network(py::module_& m) {
  py::class_<Network, std::shared_ptr<Network>>(m, "Network", py::is_final(),
                                                "Runs of cells, one after the other; immutable.")
      .def(py::init(&make), py::arg("runs"), py::arg("dtype"),
           py::arg("compute_dtype") = py::none(), py::arg("on_cuda") = false,
           py::arg("lean") = false,
           "runs: their records (fusedrnn.runs). compute_dtype \"dual\": of dual numbers of the "
           "dtype, as complex ones.")
      .def_property_readonly("parameters", &describe_parameters,
                             "(run, name, shape, optional) of each.")
      .def_property_readonly("runs", &records_of, "Records, with all constants.")
      .def_property_readonly("dtype",
                             [](const Network& network) { return dtype_name(network.dtype); })
      .def_readonly("lean", &Network::lean, "Whether gradients take the steps again.")
      .def_property_readonly(
          "compute_dtype", [](const Network& network) { return compute_name(network.compute); },
          "None: that of the arrays.")
      .def_property_readonly(
          "states",
          [](const Network& network) {
            return tuple_of(network.runs.front().cell->states,
                            [](const cells::State& state) { return state.name; });
          },
          "Their names, of the first run.")
      .def_property_readonly(
          "state_sizes",
          [](const Network& network) {
            return tuple_of(std::views::iota(0, states_of_runs(network)),
                            [&](int s) { return network.runs.front().state_size(s); });
          },
          "n of each state [B, n] of the cell.")
      .def_property_readonly("input_size", &Network::input_size)
      .def_property_readonly("output_size", &Network::output_size)
      .def("reserve_bytes", &reserve_bytes_of, py::arg("steps"), py::arg("batch"),
           py::arg("cuda_device") = py::none(),
           "Bytes that a forward pass leaves for its gradients, on the CPU or a CUDA device.")
      .def("reserve_bytes_anywhere", &reserve_bytes_of_any, py::arg("steps"), py::arg("batch"),
           "(at least as many on whatever device, exactly as many on CUDA devices): of no device.")
      .def(
          "forward", &forward_layers, py::arg("x"), py::arg("parameters"),
          py::arg("states") = py::none(), py::arg("masks") = py::none(), py::arg("save") = false,
          py::arg("y") = py::none(), py::arg("states_n") = py::none(),
          py::arg("sequences") = py::none(), py::arg("dropout") = py::none(),
          py::arg("reserve") = py::none(),
          "(y, states, states of every step, Tape or None); states are arrays [runs, B, n], one "
          "for each state of the cell. dropout: (rate of what is dropped between runs, seed, step) "
          "of a call that draws, the noise of its runs too. reserve: a vector of uint8, of "
          "reserve_bytes, which takes what is saved.");
  // (cell, x, parameters, states, masks, reverse, compute_dtype, save, y, states_n, sequences,
  // constants, lean, heads): the same of a network of one run, whose sizes are those of the arrays;
  // states are [B,n].
  m.attr(FunctionCall::kName) = make_fast<FunctionCall>();
  m.def(
      "gate_names", [](const char* cell) { return tuple_of(known_cell(cell).gates, as_it_is); },
      py::arg("cell"), "Names of the gates that a tape of the cell has; none of some cells.");
}

}  // namespace fusedrnn::bindings
