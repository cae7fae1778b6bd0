// Forward passes; Tape, what one of them left; and from it backward passes.
#include "bindings/pass.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <type_traits>

#include "bindings/arguments.h"
#include "bindings/gil.h"
#include "bindings/new_arrays.h"
#include "bindings/place.h"
#include "bindings/register.h"
#include "bindings/reserve.h"
#include "bindings/states.h"
#include "core/error.h"
#include "core/tensor.h"
#include "core/validate.h"

namespace fusedrnn::bindings {

Objects::Objects(const char* name, py::handle tuple, size_t count) : tuple_(tuple) {
  if (tuple.is_none()) return;
  if (!PyTuple_Check(tuple.ptr())) refuse_type(name, "a tuple", type_name(tuple));
  const auto size = static_cast<size_t>(PyTuple_GET_SIZE(tuple.ptr()));
  if (size == count) return;
  refuse_value(name, std::to_string(count) + " values", size);
}

std::vector<Name> parameter_names(const Network& network) {
  std::vector<Name> names;
  names.reserve(static_cast<size_t>(network.num_parameters));
  network.for_parameters([&](const Run& run, int i, int) {
    names.emplace_back(run.parameter(i).name, network.named(run));
  });
  return names;
}

Arrays<InputArray> read_parameters(py::handle parameters, const std::vector<Name>& names,
                                   Place* place) {
  const Objects objects("parameters", parameters, names.size());
  Arrays<InputArray> arrays(names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    arrays.set(i, names[i], objects[i], ElementKind::floating, place);
  }
  return arrays;
}

Dropout dropout_argument(py::handle object) {
  if (object.is_none()) return {};
  const Objects fields("dropout", object, 3);
  const py::handle rate = fields[0], seed = fields[1];
  if (!PyFloat_Check(rate.ptr())) refuse_type("dropout", "a float", type_name(rate));
  if (!PyLong_CheckExact(seed.ptr())) refuse_type("dropout_seed", "an int", type_name(seed));
  const unsigned long long number = PyLong_AsUnsignedLongLong(seed.ptr());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    refuse_value("dropout_seed", "0 to 2**64 - 1", py::cast<std::string>(py::str(seed)));
  }
  return {true, PyFloat_AS_DOUBLE(rate.ptr()), number, int_argument("dropout_step", fields[2])};
}

namespace {

// Whether x has no axis B; then it gets one.
bool is_unbatched(InputArray& x) {
  const DLTensor& t = required("x", x.tensor());
  check_header("x", t);
  if (t.ndim != 2 && t.ndim != 3) {
    refuse_value("x", "a 3-dimensional array [T, B, I], or [T, I]", "shape " + shape_text(t));
  }
  const bool unbatched = t.ndim == 2;
  if (unbatched) x.insert_axis(1);
  return unbatched;
}

// The length of a call without an axis B: a number becomes a list of one; anything else is an
// array.
py::object as_lengths(py::handle object) {
  const bool is_number = PyIndex_Check(object.ptr()) != 0 && !py::hasattr(object, "__dlpack__");
  if (!is_number) return py::reinterpret_borrow<py::object>(object);
  py::list one;
  one.append(object);
  return one;
}

}  // namespace

PassInputs::PassInputs(py::handle x_object, py::handle parameter_objects,
                       const std::vector<Name>& names, py::handle masks_object)
    : x("x", x_object, ElementKind::floating, &place),
      unbatched(is_unbatched(x)),
      parameters(read_parameters(parameter_objects, names, &place)),
      reset_states(py::none()) {
  const Objects given("masks", masks_object, 5);
  const py::object its_lengths =
      unbatched ? as_lengths(given[0]) : py::reinterpret_borrow<py::object>(given[0]);
  masks[0].emplace("lengths", its_lengths, ElementKind::integer, &place);
  masks[1].emplace("mask", given[1], ElementKind::boolean, &place);
  masks[2].emplace("resets", given[2], ElementKind::boolean, &place);
  if (unbatched) {
    const int64_t T = x.tensor()->shape[0];
    if (its_lengths.is(given[0])) add_batch(*masks[0], "lengths", {}, 0);
    add_batch(*masks[1], "mask", {T}, 1);
    add_batch(*masks[2], "resets", {T}, 1);
  }
  lengths = masks[0]->tensor();
  mask = masks[1]->tensor();
  resets = masks[2]->tensor();
  if (masks_object.is_none()) return;
  shows_padding = bool_argument("masks", given[3]);
  reset_states = py::reinterpret_borrow<py::object>(given[4]);
}

void PassInputs::make_readable() {
  x.make_readable();
  parameters.make_readable();
  for (auto& array : masks) array->make_readable();
}

void PassInputs::release_masks() {
  static constexpr DLTensor kGiven{nullptr, {kDLCUDA, 0}, 0, {}, nullptr, nullptr, 0};
  std::optional<py::array> kept;
  if (lengths != nullptr && place.on_cuda() && is_host(lengths->device)) {
    kept = empty_array(py::dtype::of<int64_t>(), {lengths->shape[0]});
    auto* const values = static_cast<int64_t*>(kept->mutable_data());
    for (int64_t b = 0; b < kept->size(); ++b) values[b] = read_integer(*lengths, b);
  }
  for (const DLTensor** given : {&lengths, &mask, &resets}) {
    if (*given != nullptr) *given = &kGiven;
  }
  for (auto& array : masks) array.reset();
  place.forget_inputs();
  if (kept) lengths = masks[0].emplace("lengths", *kept, ElementKind::integer, &place).tensor();
}

int states_of_runs(const Network& network) {
  const Run& first = network.runs.front();
  for (const Run& run : network.runs) {
    if (run.cell != first.cell || run.problem.H != first.problem.H ||
        run.problem.P != first.problem.P) {
      throw_value_error(
          "states: expected runs of one cell and size, which arrays of all runs can hold");
    }
  }
  return first.num_states();
}

namespace {

// Immutable. Keeps what backward reads again: x, the parameters, the reserve.
struct Tape {
  NetworkPointer network;
  bool stacked;
  std::unique_ptr<PassInputs> inputs;
  std::unique_ptr<Reserve> reserve;

  // Of which states there is a reset state.
  std::vector<bool> resets() const {
    std::vector<bool> found(static_cast<size_t>(states_of_runs(*network)));
    const Objects given("reset_states", inputs->reset_states, found.size());
    for (size_t s = 0; s < found.size(); ++s) found[s] = !given[s].is_none();
    return found;
  }
  Form form() const { return {*network, stacked, *inputs}; }
  // Of a call over it, on the stream that is current now; `self`: this tape.
  Place place(const py::object& self) const {
    Place now = inputs->place.now();
    if (now.on_cuda()) now.inputs().append(self);
    return now;
  }
};

// What the arguments of all passes have.
template <class Args>
Args args_of(const Network* network, const PassInputs& inputs) {
  Args args{};
  args.size = sizeof args;
  args.network = network;
  args.x = inputs.x.tensor();
  args.parameters = inputs.parameters.size() == 0 ? nullptr : inputs.parameters.tensors();
  args.lengths = inputs.lengths;
  args.mask = inputs.mask;
  args.resets = inputs.resets;
  args.training = inputs.dropout.training ? 1 : 0;
  args.dropout = inputs.dropout.rate;
  args.dropout_seed = inputs.dropout.seed;
  args.dropout_step = inputs.dropout.step;
  return args;
}

// Runs a pass where x lies, and throws what it reports.
template <class Args, class Pass>
void run_pass(Args& args, const Reserve* reserve, const Place& place, CudaMemory* memory,
              const Pass& pass) {
  if (reserve != nullptr) {
    args.reserve = reserve->data();
    args.reserve_bytes = reserve->bytes();
  }
  if (place.on_cuda()) {
    if constexpr (requires { args.allocator; }) {
      args.allocator = memory == nullptr ? nullptr : memory->allocator();
    }
    args.stream = place.stream();
  }
  fusedrnn_status status = FUSEDRNN_OK;
  {
    const ReleasedGil no_gil;
    status = pass(&args);
  }
  throw_on_failure(status, memory);
  if (reserve != nullptr) reserve->leave(place);
}

// What core would say of another shape than the user's.
void check_inputs_of(const Network& network, const PassInputs& inputs) {
  if (!inputs.unbatched) return;
  const DLTensor& x = *inputs.x.tensor();
  if (x.shape[2] == network.input_size()) return;
  const int64_t wanted[] = {x.shape[0], network.input_size()}, got[] = {x.shape[0], x.shape[2]};
  refuse_value("x", "shape " + shape_text(wanted, 2), shape_text(got, 2));
}

}  // namespace

py::tuple forward_pass(NetworkPointer network, std::unique_ptr<PassInputs> inputs, bool stacked,
                       py::handle states, bool save, py::handle y_object,
                       py::handle states_n_object, py::handle sequences,
                       const fusedrnn_frozen* frozen, py::handle reserve_object) {
  Place& place = inputs->place;
  check_inputs_of(*network, *inputs);
  const Form form(*network, stacked, *inputs);
  States<InputArray> state_0(form, Each::sequence, "", "0", states, &place);
  std::optional<States<InputArray>> resets;
  if (!inputs->reset_states.is_none()) {
    resets.emplace(form, Each::run, "reset_", "", inputs->reset_states, &place);
  }
  auto args = args_of<fusedrnn_forward_args>(frozen == nullptr ? network.get() : nullptr, *inputs);
  args.states = state_0.tensors();
  if (resets) args.reset_states = resets->tensors();
  args.padding = inputs->shows_padding ? FUSEDRNN_PADDING_LAST : FUSEDRNN_PADDING_ZERO;
  // A GPU's stream and allocator are named once core has accepted what they serve.
  check_forward(*network, args, Layout::any, frozen != nullptr);
  inputs->make_readable();
  state_0.make_readable();
  if (resets) resets->make_readable();

  OutputArray y("y", y_object, network->dtype, form.sequence(network->output_size()), &place);
  if (form.unbatched) add_batch(y, "y", form.sequence(network->output_size()), 1);
  const States<OutputArray> state_n(form, Each::sequence, "", "_n", states_n_object, &place);
  const States<OutputArray> state_y(form, Each::step, "", "", sequences, &place);
  args.y = y.tensor();
  args.state_sequences = state_y.tensors();
  args.states_n = state_n.tensors();
  // What a call leaves on a device refers to its memory until the tape is gone.
  const std::shared_ptr<CudaMemory> memory = memory_of(place);
  std::unique_ptr<Reserve> reserve;
  if (save) {
    reserve = reserve_object.is_none()
                  ? std::make_unique<Reserve>(*network, form.T, form.B, place, memory)
                  : std::make_unique<Reserve>(reserve_object, place, true);
  }
  run_pass(args, reserve.get(), place, memory.get(), [&](const fusedrnn_forward_args* a) {
    return frozen == nullptr ? fusedrnn_forward(a) : fusedrnn_frozen_forward(frozen, a);
  });
  py::tuple results = py::make_tuple(y.array(), state_n.objects(), state_y.objects(), py::none());
  if (save) {
    inputs->release_masks();
    results[3] = py::cast(std::make_unique<Tape>(
        Tape{std::move(network), stacked, std::move(inputs), std::move(reserve)}));
  }
  return results;
}

namespace {

py::tuple backward_pass(py::object self, py::handle dy_object, py::handle dstates_n_object,
                        py::handle dsequences, bool all, py::handle dx_object,
                        py::handle dparameters_object, py::handle dstates_object,
                        py::handle dresets_object, bool wants_flow, double clip_dh, bool wants_dx) {
  const Tape& tape = *py::cast<Tape*>(self);
  const Network& network = *tape.network;
  Place place = tape.place(self);
  const Form form = tape.form();
  InputArray dy("dy", dy_object, ElementKind::floating, &place);
  if (form.unbatched) add_batch(dy, "dy", form.sequence(network.output_size()), 1);
  States<InputArray> dstates_n(form, Each::sequence, "d", "_n", dstates_n_object, &place);
  States<InputArray> dstate_y(form, Each::step, "d", "", dsequences, &place);
  auto args = args_of<fusedrnn_backward_args>(&network, *tape.inputs);
  args.dy = dy.tensor();
  args.dstates_n = dstates_n.tensors();
  args.dstate_sequences = dstate_y.tensors();
  args.clip_dh = clip_dh;
  check_backward(network, args, Layout::any);
  dy.make_readable();
  dstates_n.make_readable();
  dstate_y.make_readable();

  const Shape dx_shape = form.sequence(network.input_size());
  std::optional<OutputArray> dx;
  if (wants_dx) {
    dx.emplace("dx", dx_object, network.dtype, dx_shape, &place);
    if (form.unbatched) add_batch(*dx, "dx", dx_shape, 1);
  }
  Arrays<OutputArray> dparameters(tape.inputs->parameters.size());
  const Objects given("dparameters", dparameters_object, dparameters.size());
  network.for_parameters([&](const Run& run, int i, int number) {
    const auto n = static_cast<size_t>(number);
    const bool adds = std::string_view(run.parameter(i).name).starts_with("b_");
    if (!(all && adds) && args.parameters[n] == nullptr && given[n].is_none()) return;
    const Name name{"d", run.parameter(i).name, "", network.named(run)};
    dparameters.set(n, name, given[n], network.dtype, run.parameter_shape(i), &place);
  });
  const States<OutputArray> dstates(form, Each::sequence, "d", "0", dstates_object, &place);
  const std::vector<bool> resets = tape.resets();
  const States<OutputArray> dresets(form, Each::run, "dreset_", "", dresets_object, &place,
                                    &resets);
  if (dx) args.dx = dx->tensor();
  args.dparameters = dparameters.tensors();
  args.dstates = dstates.tensors();
  args.dreset_states = dresets.tensors();
  std::optional<OutputArray> flow;
  if (wants_flow) {
    const Shape norms = {network.num_states, form.T};
    args.flow = flow.emplace("flow", py::none(), Dtype::float64, norms, &place).tensor();
  }
  const std::shared_ptr<CudaMemory> memory = memory_of(place);
  tape.reserve->enter(place);
  run_pass(args, tape.reserve.get(), place, memory.get(), fusedrnn_backward);
  return py::make_tuple(dx ? dx->array() : py::none(), dparameters.objects(), dstates.objects(),
                        dresets.objects(), flow ? flow->array() : py::none());
}

// The gates of a run, [T,B,number of gates * H].
py::object gates_of_run(const py::object& self, int32_t run) {
  const Tape& tape = *py::cast<Tape*>(self);
  const Network& network = *tape.network;
  if (run < 0 || static_cast<size_t>(run) >= network.runs.size()) {
    refuse_value("run", "0 to " + std::to_string(network.runs.size() - 1), run);
  }
  Place place = tape.place(self);
  const Form form = tape.form();
  const Run& its_run = network.runs[static_cast<size_t>(run)];
  const Shape whole =
      form.sequence(static_cast<int64_t>(its_run.cell->gates.size()) * its_run.problem.H);
  OutputArray gates("gates", py::none(), network.dtype, whole, &place);
  if (form.unbatched) add_batch(gates, "gates", whole, 1);
  fusedrnn_gates_args args{};
  args.size = sizeof args;
  args.network = &network;
  args.run = run;
  args.masked = has_masks(*tape.inputs);
  args.gates = gates.tensor();
  tape.reserve->enter(place);
  run_pass(args, tape.reserve.get(), place, nullptr, fusedrnn_reserve_gates);
  return gates.array();
}

// A tape over a reserve that was kept, or came back, as plain bytes.
std::unique_ptr<Tape> tape_of(const std::shared_ptr<Network>& network, py::handle x,
                              py::handle parameters, py::handle masks, py::handle reserve,
                              py::handle dropout) {
  auto inputs = std::make_unique<PassInputs>(x, parameters, parameter_names(*network), masks);
  inputs->dropout = dropout_argument(dropout);
  check_inputs_of(*network, *inputs);
  const auto args = args_of<fusedrnn_backward_args>(network.get(), *inputs);
  check_backward(*network, args, Layout::any);
  inputs->make_readable();
  inputs->release_masks();
  auto kept = std::make_unique<Reserve>(reserve, inputs->place, false);
  return std::make_unique<Tape>(Tape{network, true, std::move(inputs), std::move(kept)});
}

}  // namespace

void register_tape(py::module_& m) {
  py::class_<Tape>(
      m, "Tape", py::is_final(),
      "What one forward call left for backward; immutable. Keeps x and the parameters alive.")
      .def(py::init(&tape_of), py::arg("network"), py::arg("x"), py::arg("parameters"),
           py::arg("masks"), py::arg("reserve"), py::arg("dropout") = py::none())
      .def("backward", &backward_pass, py::arg("dy"), py::arg("dstates_n"), py::arg("dsequences"),
           py::arg("all"), py::arg("dx") = py::none(), py::arg("dparameters") = py::none(),
           py::arg("dstates") = py::none(), py::arg("dresets") = py::none(),
           py::arg("flow") = false, py::arg("clip_dh") = 0.0, py::arg("wants_dx") = true,
           "(dx, gradients of parameters, of states, of reset states, norms of the gradients of "
           "states at each step [states, T] or None); of parameters that were not given None, "
           "unless they are biases and `all` are wanted; of reset states that were not given None. "
           "Without wants_dx None in the place of dx, which is not computed.")
      .def("gates", &gates_of_run, py::arg("run"),
           "The gates of every step, [T, B, gates * H]; zero where a step does not exist.")
      .def_property_readonly(
          "network", [](const Tape& tape) { return as_python(tape.network); },
          "That of the forward call.")
      .def_property_readonly(
          "reserve", [](const Tape& tape) { return tape.reserve->array(); },
          "All that the forward pass computed for backward, as bytes; None on a CUDA device, where "
          "it was not given.")
      .def_property_readonly(
          "shape",
          [](const Tape& tape) {
            const Form form = tape.form();
            return py::make_tuple(form.T, form.B);
          },
          "(T, B).")
      .def_property_readonly(
          "unbatched", [](const Tape& tape) { return tape.inputs->unbatched; },
          "Whether x had no axis B.")
      .def_property_readonly("resets", &Tape::resets, "Of which states there was a reset state.")
      .def_property_readonly(
          "dropout",
          [](const Tape& tape) {
            const auto& [training, rate, seed, step] = tape.inputs->dropout;
            return training ? py::object(py::make_tuple(rate, seed, step)) : py::none();
          },
          "(rate, seed, step) of what was drawn; None where nothing was.");
}

}  // namespace fusedrnn::bindings
