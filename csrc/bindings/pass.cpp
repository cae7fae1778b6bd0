// Forward passes; Tape, what one of them left; and from it backward passes.
#include "bindings/pass.h"

#include <pybind11/stl.h>

#include <string>
#include <string_view>
#include <type_traits>

#include "bindings/arguments.h"
#include "bindings/gil.h"
#include "bindings/place.h"
#include "bindings/register.h"
#include "bindings/reserve.h"
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
    names.emplace_back("", run.parameter(i).name, "", network.named(run));
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

PassInputs::PassInputs(py::handle x_object, py::handle parameter_objects,
                       const std::vector<Name>& names, py::handle masks_object)
    : x("x", x_object, ElementKind::floating, &place),
      parameters(read_parameters(parameter_objects, names, &place)) {
  const Objects given("masks", masks_object, 4);
  lengths = masks[0].emplace("lengths", given[0], ElementKind::integer, &place).tensor();
  mask = masks[1].emplace("mask", given[1], ElementKind::boolean, &place).tensor();
  resets = masks[2].emplace("resets", given[2], ElementKind::boolean, &place).tensor();
  shows_padding = !masks_object.is_none() && bool_argument("masks", given[3]);
}

void PassInputs::make_readable() {
  x.make_readable();
  parameters.make_readable();
  for (auto& array : masks) array->make_readable();
}

void PassInputs::release_masks() {
  static constexpr DLTensor kGiven{};
  for (const DLTensor** given : {&lengths, &mask, &resets}) {
    if (*given != nullptr) *given = &kGiven;
  }
  for (auto& array : masks) array.reset();
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

// How messages speak of states: "h0" of a function's, "state[0]" of a stack's.
struct StateNames {
  const char* prefix;  // "" or "d"
  const char* time;    // "0" or "_n"
  const char* word;    // "state" or "out[1]"
};

// The states of all runs, as Python has them and as core wants them.
template <class Array>
class States {
 public:
  // New or given arrays of B sequences to write to, or arrays to read.
  States(const Network& network, bool stacked, const StateNames& names, py::handle tuple,
         Place* place, int64_t B = 0)
      : network_(network),
        stacked_(stacked),
        arrays_(static_cast<size_t>(states_of_runs(network))) {
    const Objects objects("states", tuple, arrays_.size());
    for (size_t s = 0; s < arrays_.size(); ++s) {
      const Name name = name_of(names, s);
      if constexpr (std::is_same_v<Array, InputArray>) {
        arrays_.set(s, name, objects[s], ElementKind::floating, place);
      } else {
        const int64_t size = network.runs.front().state_size(static_cast<int>(s));
        const Shape shape = stacked ? Shape{num_runs(), B, size} : Shape{B, size};
        arrays_.set(s, name, objects[s], network.dtype, shape, place);
      }
      if (stacked && arrays_.tensors()[s] != nullptr) check_stacked(name, s);
    }
    cut();
  }

  typename Arrays<Array>::Tensor const* tensors() const {
    return stacked_ ? list_.data() : arrays_.tensors();
  }
  py::tuple objects() const { return arrays_.objects(); }

  void make_readable() {
    arrays_.make_readable();
    cut();
  }

 private:
  int64_t num_runs() const { return static_cast<int64_t>(network_.runs.size()); }

  Name name_of(const StateNames& names, size_t s) const {
    if (!stacked_)
      return {names.prefix, network_.runs.front().cell->states[s].name, names.time, -1};
    static constexpr const char* kNumbers[kMaxStates] = {"[0]", "[1]", "[2]", "[3]"};
    return {names.prefix, names.word, arrays_.size() == 1 ? "" : kNumbers[s], -1};
  }

  void check_stacked(const Name& name, size_t s) const {
    const DLTensor& t = *arrays_.tensors()[s];
    check_header(name, t);
    if (t.ndim == 3 && t.shape[0] == num_runs()) return;
    const int64_t wanted[] = {num_runs(), kAnyExtent,
                              network_.runs.front().state_size(static_cast<int>(s))};
    refuse_value(name, "shape " + shape_text(wanted, 3), shape_text(t));
  }

  // One slice of a stacked array for each run.
  void cut() {
    if (!stacked_) return;
    slices_.resize(static_cast<size_t>(network_.num_states));
    list_.resize(slices_.size(), nullptr);
    network_.for_states([&](const Run& run, int s, int number) {
      const DLTensor* t = arrays_.tensors()[s];
      if (t == nullptr) return;
      DLTensor& slice = slices_[static_cast<size_t>(number)];
      slice = *t;
      slice.ndim = 2;
      ++slice.shape;
      ++slice.strides;  // of arrays of ours, which have them
      const int64_t offset = network_.number_of(run) * stride_of(*t, 0) * item_size(*t);
      if (slice.data != nullptr) slice.data = static_cast<char*>(slice.data) + offset;
      list_[static_cast<size_t>(number)] = &slice;
    });
  }

  const Network& network_;
  const bool stacked_;
  Arrays<Array> arrays_;
  std::vector<DLTensor> slices_;
  std::vector<typename Arrays<Array>::Tensor> list_;
};

// Immutable. Keeps what backward reads again: x, the parameters, the reserve.
struct Tape {
  NetworkPointer network;
  bool stacked;
  std::unique_ptr<PassInputs> inputs;
  std::unique_ptr<Reserve> reserve;
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
    args.allocator = memory == nullptr ? nullptr : memory->allocator();
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

// Of arrays, and tuples of them, whose library may not know of the work that reads the inputs.
void keep_inputs_of_each(const py::tuple& results, const py::tuple& inputs) {
  for (const py::handle result : results) {
    if (py::isinstance<py::tuple>(result)) {
      keep_inputs_of_each(py::reinterpret_borrow<py::tuple>(result), inputs);
    } else if (!result.is_none()) {
      keep_inputs(py::reinterpret_borrow<py::object>(result), inputs);
    }
  }
}

}  // namespace

py::tuple forward_pass(NetworkPointer network, std::unique_ptr<PassInputs> inputs, bool stacked,
                       py::handle states, bool save, py::handle y_object,
                       py::handle states_n_object, const fusedrnn_frozen* frozen) {
  Place& place = inputs->place;
  States<InputArray> state_0(*network, stacked, {"", "0", "state"}, states, &place);
  auto args = args_of<fusedrnn_forward_args>(frozen == nullptr ? network.get() : nullptr, *inputs);
  args.states = state_0.tensors();
  args.padding = inputs->shows_padding ? FUSEDRNN_PADDING_LAST : FUSEDRNN_PADDING_ZERO;
  // A GPU's stream and allocator are named once core has accepted what they serve.
  check_forward_inputs(*network, args, Layout::any, frozen != nullptr);
  inputs->make_readable();
  state_0.make_readable();

  const int64_t T = args.x->shape[0], B = args.x->shape[1];
  OutputArray y(stacked ? "out[0]" : "y", y_object, network->dtype, {T, B, network->output_size()},
                &place);
  const States<OutputArray> state_n(*network, stacked, {"", "_n", "out[1]"}, states_n_object,
                                    &place, B);
  args.y = y.tensor();
  args.states_n = state_n.tensors();
  // What a call leaves on a device refers to its memory until the tape is gone.
  const std::shared_ptr<CudaMemory> memory = memory_of(place);
  std::unique_ptr<Reserve> reserve;
  if (save) reserve = std::make_unique<Reserve>(*network, T, B, place, memory);
  run_pass(args, reserve.get(), place, memory.get(), [&](const fusedrnn_forward_args* a) {
    return frozen == nullptr ? fusedrnn_forward(a) : fusedrnn_frozen_forward(frozen, a);
  });
  py::tuple results = py::make_tuple(y.array(), state_n.objects(), py::none());
  if (place.on_cuda()) {
    keep_inputs_of_each(
        results,
        py::make_tuple(inputs->x.owner(), inputs->parameters.objects(), inputs->masks[0]->owner(),
                       inputs->masks[1]->owner(), inputs->masks[2]->owner(), state_0.objects()));
  }
  if (save) {
    inputs->release_masks();
    results[2] = py::cast(std::make_unique<Tape>(
        Tape{std::move(network), stacked, std::move(inputs), std::move(reserve)}));
  }
  return results;
}

namespace {

py::tuple backward_pass(py::object self, py::handle dy_object, py::handle dstates_n_object,
                        bool all, py::handle dx_object, py::handle dparameters_object,
                        py::handle dstates_object) {
  const Tape& tape = *py::cast<Tape*>(self);
  const Network& network = *tape.network;
  Place place = tape.inputs->place.now();
  InputArray dy("dy", dy_object, ElementKind::floating, &place);
  States<InputArray> dstates_n(network, tape.stacked, {"d", "_n", "state"}, dstates_n_object,
                               &place);
  auto args = args_of<fusedrnn_backward_args>(&network, *tape.inputs);
  args.dy = dy.tensor();
  args.dstates_n = dstates_n.tensors();
  check_backward_inputs(network, args, Layout::any);
  dy.make_readable();
  dstates_n.make_readable();

  const int64_t T = args.x->shape[0], B = args.x->shape[1];
  OutputArray dx("dx", dx_object, network.dtype, {T, B, network.input_size()}, &place);
  Arrays<OutputArray> dparameters(tape.inputs->parameters.size());
  const Objects given("dparameters", dparameters_object, dparameters.size());
  network.for_parameters([&](const Run& run, int i, int number) {
    const auto n = static_cast<size_t>(number);
    const bool adds = std::string_view(run.parameter(i).name).starts_with("b_");
    if (!(all && adds) && args.parameters[n] == nullptr && given[n].is_none()) return;
    const Name name{"d", run.parameter(i).name, "", network.named(run)};
    dparameters.set(n, name, given[n], network.dtype, run.parameter_shape(i), &place);
  });
  const States<OutputArray> dstates(network, tape.stacked, {"d", "0", "state"}, dstates_object,
                                    &place, B);
  args.dx = dx.tensor();
  args.dparameters = dparameters.tensors();
  args.dstates = dstates.tensors();
  const std::shared_ptr<CudaMemory> memory = memory_of(place);
  tape.reserve->enter(place);
  run_pass(args, tape.reserve.get(), place, memory.get(), fusedrnn_backward);
  py::tuple results = py::make_tuple(dx.array(), dparameters.objects(), dstates.objects());
  if (place.on_cuda())
    keep_inputs_of_each(results, py::make_tuple(self, dy.owner(), dstates_n.objects()));
  return results;
}

// A tape over a reserve that was kept, or came back, as plain bytes.
std::unique_ptr<Tape> tape_of(const std::shared_ptr<Network>& network, py::handle x,
                              py::handle parameters, py::handle masks, const py::array& reserve) {
  auto inputs = std::make_unique<PassInputs>(x, parameters, parameter_names(*network), masks);
  if (inputs->place.on_cuda()) refuse_type("x", "an array on the CPU", "one on a CUDA device");
  const auto args = args_of<fusedrnn_backward_args>(network.get(), *inputs);
  check_backward_inputs(*network, args, Layout::any);
  inputs->make_readable();
  inputs->release_masks();
  return std::make_unique<Tape>(
      Tape{network, true, std::move(inputs), std::make_unique<Reserve>(reserve)});
}

const char* compute_name(const Network& network) {
  if (network.compute == Compute::bfloat16) return dtype_name(Dtype::bfloat16);
  return network.compute == Compute::tfloat32 ? kTfloat32 : dtype_name(network.dtype);
}

}  // namespace

void register_tape(py::module_& m) {
  py::class_<Tape>(
      m, "Tape", py::is_final(),
      "What one forward call left for backward; immutable. Keeps x and the parameters alive.")
      .def(py::init(&tape_of), py::arg("network"), py::arg("x"), py::arg("parameters"),
           py::arg("masks"), py::arg("reserve"))
      .def("backward", &backward_pass, py::arg("dy"), py::arg("dstates_n"), py::arg("all"),
           py::arg("dx") = py::none(), py::arg("dparameters") = py::none(),
           py::arg("dstates") = py::none(),
           "(dx, gradients of parameters, gradients of states); of parameters that were not given "
           "None, unless they are biases and `all` are wanted.")
      .def_property_readonly(
          "reserve", [](const Tape& tape) { return tape.reserve->array(); },
          "All that the forward pass computed for backward, as bytes; None on a CUDA device.")
      .def_property_readonly(
          "parameters",
          [](const Tape& tape) {
            py::list names;
            for (const Name& name : parameter_names(*tape.network)) names.append(name.base);
            return py::tuple(names);
          },
          "Names of the parameters, run by run.")
      .def_property_readonly(
          "shape",
          [](const Tape& tape) {
            const int64_t* shape = tape.inputs->x.tensor()->shape;
            return py::make_tuple(shape[0], shape[1]);
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
