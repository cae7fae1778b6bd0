#include "bindings/tape.h"

#include <optional>
#include <string>

#include "bindings/arguments.h"
#include "bindings/gil.h"
#include "bindings/register.h"
#include "core/error.h"
#include "core/tensor.h"
#include "core/validate.h"

namespace fusedrnn::bindings {
namespace {

const char* compute_name(const Network& network) {
  if (network.compute == Compute::bfloat16) return dtype_name(Dtype::bfloat16);
  return network.compute == Compute::tfloat32 ? kTfloat32 : dtype_name(network.dtype);
}

// One output for each parameter that is given, or for `all` of them.
class ParameterOutputs {
 public:
  ParameterOutputs(const Tape& tape, bool all, py::handle arrays, const Place* place) {
    const Network& network = *tape.network;
    const auto count = static_cast<size_t>(network.num_parameters);
    const Objects objects("dparameters", arrays, count);
    outputs_ = std::vector<std::optional<OutputArray>>(count);
    list_.resize(count, nullptr);
    network.for_parameters([&](const Run& run, int i, int number) {
      const auto n = static_cast<size_t>(number);
      if (!all && tape.inputs->parameters()[n] == nullptr && objects[n].is_none()) return;
      const Name name{"d", run.cell->parameters[static_cast<size_t>(i)].name, "",
                      network.named(run)};
      outputs_[n].emplace(name, objects[n], network.dtype, run.parameter_shape(i), place);
      list_[n] = outputs_[n]->tensor();
    });
  }

  DLTensor* const* list() const { return list_.data(); }
  py::tuple arrays() const {
    py::tuple result(outputs_.size());
    for (size_t i = 0; i < outputs_.size(); ++i) {
      result[i] = outputs_[i] ? outputs_[i]->array() : py::object(py::none());
    }
    return result;
  }

 private:
  std::vector<std::optional<OutputArray>> outputs_;
  std::vector<DLTensor*> list_;
};

py::tuple backward(py::object self, py::handle dy_object, py::handle dstates_n_object, bool all,
                   py::handle dx_object, py::handle dparameters_object, py::handle dstates_object) {
  const Tape& tape = *py::cast<Tape*>(self);
  const Network& network = *tape.network;
  const PassInputs& inputs = *tape.inputs;
  Place place = inputs.place().now();
  InputArray dy("dy", dy_object, ElementKind::floating, &place);
  StateInputs dstates_n(network, tape.stacked, {"d", "_n", "state"}, dstates_n_object, &place);

  fusedrnn_backward_args args{};
  args.size = sizeof args;
  args.network = &network;
  args.x = inputs.x();
  args.parameters = inputs.parameters();
  args.lengths = inputs.lengths();
  args.resets = inputs.resets();
  args.reserve = tape.reserve->data();
  args.reserve_bytes = tape.reserve->bytes();
  args.dy = dy.tensor();
  args.dstates_n = dstates_n.list();
  check_backward_inputs(network, args, Layout::any);
  dy.make_readable();
  dstates_n.make_readable();
  args.dy = dy.tensor();
  args.dstates_n = dstates_n.list();

  const int64_t T = args.x->shape[0], B = args.x->shape[1];
  OutputArray dx("dx", dx_object, network.dtype, {T, B, network.input_size()}, &place);
  const ParameterOutputs dparameters(tape, all, dparameters_object, &place);
  StateOutputs dstates(network, tape.stacked, {"d", "0", "state"}, B, dstates_object, &place);
  args.dx = dx.tensor();
  args.dparameters = dparameters.list();
  args.dstates = dstates.list();
  const std::shared_ptr<CudaMemory> memory = memory_of(place);
  if (place.on_cuda()) {
    args.allocator = memory ? memory->allocator() : nullptr;
    args.stream = place.stream();
  }
  tape.reserve->enter(place);
  fusedrnn_status status = FUSEDRNN_OK;
  {
    const ReleasedGil no_gil;
    status = fusedrnn_backward(&args);
  }
  throw_on_failure(status, memory.get());
  tape.reserve->leave(place);
  const py::tuple parameters = dparameters.arrays(), states = dstates.arrays();
  if (place.on_cuda()) {
    const py::tuple read = py::make_tuple(self, dy.owner(), dstates_n.owners());
    keep_inputs(dx.array(), read);
    keep_inputs(parameters, read);
    keep_inputs(states, read);
  }
  return py::make_tuple(dx.array(), parameters, states);
}

// A tape over a reserve that was kept, or came back, as plain bytes.
std::unique_ptr<Tape> tape_of(const std::shared_ptr<Network>& network, py::handle x,
                              py::handle parameters, py::handle lengths, py::handle resets,
                              const py::array& reserve) {
  auto inputs =
      std::make_unique<PassInputs>(x, parameters, parameter_names(*network), lengths, resets);
  if (inputs->place().on_cuda())
    throw_type_error(expected("x", "an array on the CPU", "one on a CUDA device"));
  fusedrnn_backward_args args{};
  args.size = sizeof args;
  args.x = inputs->x();
  args.parameters = inputs->parameters();
  args.lengths = inputs->lengths();
  args.resets = inputs->resets();
  check_backward_inputs(*network, args, Layout::any);
  inputs->make_readable();
  inputs->release_masks();
  return std::make_unique<Tape>(
      Tape{network, true, std::move(inputs), std::make_unique<Reserve>(reserve)});
}

}  // namespace

void register_tape(py::module_& m) {
  py::class_<Tape>(
      m, "Tape", py::is_final(),
      "What one forward call left for backward; immutable. Keeps x and the parameters alive.")
      .def(py::init(&tape_of), py::arg("network"), py::arg("x"), py::arg("parameters"),
           py::arg("lengths"), py::arg("resets"), py::arg("reserve"))
      .def("backward", &backward, py::arg("dy"), py::arg("dstates_n"), py::arg("all"),
           py::arg("dx") = py::none(), py::arg("dparameters") = py::none(),
           py::arg("dstates") = py::none(),
           "(dx, gradients of parameters, gradients of states); of parameters that were not given "
           "None, "
           "unless `all` are wanted.")
      .def_property_readonly(
          "reserve", [](const Tape& tape) { return tape.reserve->array(); },
          "All that the forward pass computed for backward, as bytes; None on a CUDA device.")
      .def_property_readonly(
          "parameters",
          [](const Tape& tape) {
            py::list names;
            tape.network->for_parameters([&](const Run& run, int i, int) {
              names.append(run.cell->parameters[static_cast<size_t>(i)].name);
            });
            return py::tuple(names);
          },
          "Names of the parameters, run by run.")
      .def_property_readonly(
          "shape",
          [](const Tape& tape) {
            return py::make_tuple(tape.inputs->x()->shape[0], tape.inputs->x()->shape[1]);
          },
          "(T, B).")
      .def_property_readonly(
          "dtype", [](const Tape& tape) { return dtype_name(tape.network->dtype); },
          "Name of the element type of x and of all else.")
      .def_property_readonly(
          "compute_dtype", [](const Tape& tape) { return compute_name(*tape.network); },
          "Name of the type that the products' operands are rounded to.");
}

}  // namespace fusedrnn::bindings
