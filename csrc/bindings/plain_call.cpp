// Calls of layers and cells with arrays that can be used as they lie (ArrayView::see): the
// whole way in and out without a call of Python's.
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/fast_function.h"
#include "bindings/gil.h"
#include "bindings/new_arrays.h"
#include "bindings/pass.h"
#include "bindings/register.h"
#include "bindings/run_states.h"
#include "core/error.h"
#include "core/frozen.h"
#include "core/memory.h"
#include "core/reserve.h"

namespace fusedrnn::bindings {
namespace {

// How the arrays of a call lie; what has no axis B gets one.
enum class Axes {
  steps = 0,        // x [T,B,I] or [T,I], states [R,B,n] or [R,n]
  batch_first = 1,  // x [B,T,I], else as these
  cell = 2,         // x [B,I] or [I], states [B,n] or [n], which are the result
  step = 3,         // of layers: x [B,I] or [I], states as of `steps`
};

bool is_one_step(Axes axes) { return axes == Axes::cell || axes == Axes::step; }

Axes axes_argument(py::handle object, Axes last) {
  const int64_t axes = int_argument("axes", object), most = static_cast<int64_t>(last);
  if (axes < 0 || axes > most) refuse_value("axes", "0 to " + std::to_string(most), axes);
  return static_cast<Axes>(axes);
}

// One array [R,B,n] for each state of the cell, and a part of it for each run.
struct StateViews {
  explicit StateViews(const Network& network)
      : runs(static_cast<int64_t>(network.runs.size())), parts(network) {}

  // Whether there is none, or it can be used as it lies.
  bool see(int state, PyObject* object, bool keeps, Axes axes, bool batched) {
    if (object == Py_None) return true;
    ArrayView& view = whole[state];
    if (!view.see(object, keeps)) return false;
    if (axes == Axes::cell) view.insert_axis(0);
    if (!batched) view.insert_axis(1);
    if (view.tensor.ndim != 3 || view.shape[0] != runs) return false;
    parts.cut_runs(state, view.tensor);
    return true;
  }

  const int64_t runs;
  ArrayView whole[kMaxStates];
  RunStates parts;
};

// Whether Python is left to others meanwhile. `work`: multiply-adds of a step of one sequence.
bool is_long(int64_t T, int64_t B, int64_t work) {
  return T > kGilWork || B > kGilWork || T * B > kGilWork / work;
}

// Whether what has been seen is a sequence, batched or not: as [T,B,n], then.
bool take_steps(ArrayView& view, Axes axes, bool batched) {
  if (view.tensor.ndim != (is_one_step(axes) ? 1 : 2) + (batched ? 1 : 0)) return false;
  if (!batched) view.insert_axis(view.tensor.ndim - 1);
  if (is_one_step(axes)) view.insert_axis(0);
  if (batched && axes == Axes::batch_first) view.swap_first_axes();
  return true;
}

// Whether an array is none or can be used as it lies; `tensor`: null where it is none.
bool see_given(PyObject* object, bool keeps, ArrayView& view, const DLTensor*& tensor) {
  if (object == Py_None) return true;
  tensor = &view.tensor;
  return view.see(object, keeps);
}

class PlainCall {
 public:
  static constexpr const char* kName = "plain_call";
  static constexpr Py_ssize_t kFewestArguments = 5, kArguments = 7;

  // `names`: of each parameter of the network in a module's dict; None of one that is not there.
  // `of_modules`: of fusedrnn.torch's modules, which see to gradients themselves, and whose y lies
  // in memory as torch.nn's; of layers that is dense. `frozen`: packed weights in the place of
  // parameters, or null.
  PlainCall(NetworkPointer network, py::tuple names, bool of_modules,
            std::shared_ptr<const fusedrnn_frozen> frozen = nullptr)
      : network_(std::move(network)),
        frozen_(std::move(frozen)),
        names_(std::move(names)),
        of_modules_(of_modules),
        work_(step_work(*network_)),
        states_(states_of_runs(*network_)) {
    const auto count = frozen_ ? size_t{0} : static_cast<size_t>(network_->num_parameters);
    if (names_.size() != count) refuse_value("names", std::to_string(count), names_.size());
  }

  py::object call(PyObject* const* arguments) const {
    PyObject *const parameters = arguments[0], *const x_object = arguments[1],
                    *const state_objects = arguments[2], *const lengths_object = arguments[5],
                    *const resets_object = arguments[6];
    const Axes axes = axes_argument(arguments[3], Axes::step);
    const bool save = bool_argument("save", arguments[4]);
    const ResultsLike results(x_object);
    if (!results || results.are_bits() || (save && frozen_) ||
        (!frozen_ && !PyDict_CheckExact(parameters))) {
      return py::none();
    }
    const bool cell = axes == Axes::cell, one_step = is_one_step(axes);
    ArrayView x;
    if (!x.see(x_object, false)) return py::none();
    if (loses_gradient(x_object) || state_loses_gradient(state_objects)) return py::none();
    const bool batched = x.tensor.ndim == (one_step ? 2 : 3);
    const bool swapped = batched && axes == Axes::batch_first;
    if (!take_steps(x, axes, batched) || ((save || of_modules_) && !results.has_table())) {
      return py::none();
    }
    const int64_t T = x.shape[0], B = x.shape[1];
    const DLDataType dtype = dtype_info(network_->dtype).dlpack;
    if (!same_type(x.tensor.dtype, dtype) || T == 0 || B == 0 || !steps_fit(*network_, T, B)) {
      return py::none();
    }

    // Results first: to make an object of Python's may run any other code, as may the question for
    // gradients above.
    const auto runs = static_cast<int64_t>(network_->runs.size());
    const int64_t width = network_->output_size();
    ArrayView y;
    py::object made[1 + kMaxStates + 1];  // y, states, the reserve
    Block scratch;
    if (cell) {
      scratch = Block(static_cast<size_t>(B * width * dtype.bits / 8));
      y.view(scratch.data(), dtype, {T, B, width});
    } else {
      Shape shape{};
      if (!one_step) shape.add(swapped ? B : T);
      if (batched) shape.add(swapped ? T : B);
      shape.add(width);
      void* data = nullptr;
      made[0] = results.make(dtype, shape, &data, swapped && of_modules_);
      if (swapped && !of_modules_) {
        y.view(data, dtype, {B, T, width});
        y.swap_first_axes();
      } else {
        y.view(data, dtype, {T, B, width});
      }
    }
    StateViews after(*network_);
    for (int s = 0; s < states_; ++s) {
      const int64_t n = network_->runs.front().state_size(s);
      Shape shape{};
      if (!cell) shape.add(runs);
      if (batched) shape.add(B);
      shape.add(n);
      void* data = nullptr;
      made[1 + s] = results.make(dtype, shape, &data);
      after.whole[s].view(data, dtype, {runs, B, n});
      after.parts.cut_runs(s, after.whole[s].tensor);
    }
    void* reserve = nullptr;
    size_t reserve_size = 0;
    if (save) {
      reserve_size = reserve_bytes(*network_, {kDLCPU, 0}, T, B);
      const Shape shape{static_cast<int64_t>(reserve_size)};
      made[1 + states_] = results.make({kDLUInt, 8, 1}, shape, &reserve);
    }

    // Without the GIL somebody may put other parameters in the place of these.
    const bool long_work = is_long(T, B, work_);
    if (!x.see(x_object, long_work) || !take_steps(x, axes, batched) || x.shape[0] != T ||
        x.shape[1] != B) {
      return py::none();
    }
    SmallVector<ArrayView> weights(names_.size());
    std::vector<const DLTensor*> weight_list(names_.size(), nullptr);
    for (size_t i = 0; i < weights.size(); ++i) {
      PyObject* const name = PyTuple_GET_ITEM(names_.ptr(), static_cast<Py_ssize_t>(i));
      if (name == Py_None) continue;
      PyObject* const weight = PyDict_GetItemWithError(parameters, name);
      if (weight == nullptr || !weights[i].see(weight, long_work)) {
        PyErr_Clear();
        return py::none();
      }
      weight_list[i] = &weights[i].tensor;
    }
    fusedrnn_forward_args args{};
    ArrayView lengths, resets;
    if (!see_given(lengths_object, long_work, lengths, args.lengths) ||
        !see_given(resets_object, long_work, resets, args.resets)) {
      return py::none();
    }
    if (args.resets != nullptr) {
      if (axes != Axes::step || !batched || resets.tensor.ndim != 1) return py::none();
      resets.insert_axis(0);
    }
    StateViews before(*network_);
    if (state_objects != Py_None) {
      const bool many = PyTuple_CheckExact(state_objects);
      if (many ? PyTuple_GET_SIZE(state_objects) != states_ : states_ != 1) return py::none();
      if (many && states_ == 1 && axes != Axes::step) return py::none();
      for (int s = 0; s < states_; ++s) {
        PyObject* const state = many ? PyTuple_GET_ITEM(state_objects, s) : state_objects;
        if (state == Py_None && states_ == 1) return py::none();
        if (!before.see(s, state, long_work, axes, batched)) return py::none();
      }
    }

    args.size = sizeof args;
    args.network = frozen_ ? nullptr : network_.get();
    args.x = &x.tensor;
    args.parameters = frozen_ ? nullptr : weight_list.data();
    args.states = before.parts.list();
    args.y = &y.tensor;
    args.states_n = after.parts.list();
    args.reserve = reserve;
    args.reserve_bytes = reserve_size;
    fusedrnn_status status = FUSEDRNN_OK;
    {
      std::optional<ReleasedGil> no_gil;
      if (long_work) no_gil.emplace();
      status = frozen_ ? fusedrnn_frozen_forward(frozen_.get(), &args) : fusedrnn_forward(&args);
    }
    if (status != FUSEDRNN_OK) return py::none();
    if (save) return tuple_taking(made + (cell ? 1 : 0), states_ + (cell ? 1 : 2));
    if (states_ > 1) made[1] = tuple_taking(made + 1, states_);
    return cell ? std::move(made[1]) : py::object(tuple_taking(made, 2));
  }

 private:
  // Whether somebody has to be warned.
  bool loses_gradient(PyObject* array) const { return !of_modules_ && wants_gradient(array); }
  // Of one array or a tuple of them; others are left to the usual way.
  bool state_loses_gradient(PyObject* state) const {
    if (state == Py_None) return false;
    if (!PyTuple_CheckExact(state)) return loses_gradient(state);
    const Py_ssize_t count = PyTuple_GET_SIZE(state);
    for (Py_ssize_t s = 0; s < count; ++s) {
      PyObject* const part = PyTuple_GET_ITEM(state, s);
      if (part != Py_None && loses_gradient(part)) return true;
    }
    return false;
  }

  NetworkPointer network_;
  std::shared_ptr<const fusedrnn_frozen> frozen_;
  py::tuple names_;
  bool of_modules_;
  int64_t work_;  // multiply-adds of a step of one sequence
  int states_;
};

// Gradients of a call that saved its reserve; small ones, for which the way there costs more.
class PlainBackward {
 public:
  static constexpr const char* kName = "plain_backward";
  static constexpr Py_ssize_t kFewestArguments = 4, kArguments = 4;

  explicit PlainBackward(NetworkPointer network)
      : network_(std::move(network)),
        parameters_(static_cast<size_t>(network_->num_parameters), Shape{}),
        work_(step_work(*network_)),
        states_(states_of_runs(*network_)) {
    network_->for_parameters([&](const Run& run, int i, int number) {
      parameters_[static_cast<size_t>(number)] = run.parameter_shape(i);
    });
  }

  py::object call(PyObject* const* arguments) const {
    PyObject *const saved = arguments[0], *const upstream = arguments[1];
    const Axes axes = axes_argument(arguments[2], Axes::cell);
    const bool wants_dx = bool_argument("wants_dx", arguments[3]);
    const auto num_parameters = static_cast<Py_ssize_t>(parameters_.size());
    const Py_ssize_t first_state = 1 + num_parameters, given = first_state + states_;
    const bool cell = axes == Axes::cell;
    if (!PyTuple_CheckExact(saved) || PyTuple_GET_SIZE(saved) != given + 2 ||
        !PyTuple_CheckExact(upstream) || PyTuple_GET_SIZE(upstream) != states_ + (cell ? 0 : 1)) {
      return py::none();
    }
    const auto saved_at = [&](Py_ssize_t i) { return PyTuple_GET_ITEM(saved, i); };
    const ResultsLike results(saved_at(0));
    ArrayView x;
    if (!results || !results.has_table() || !see_steps(x, saved_at(0), axes)) return py::none();
    const int64_t T = x.shape[0], B = x.shape[1];
    const DLDataType dtype = dtype_info(network_->dtype).dlpack;
    if (!same_type(x.tensor.dtype, dtype) || T == 0 || B == 0 || is_long(T, B, work_)) {
      return py::none();
    }

    fusedrnn_backward_args args{};
    args.size = sizeof args;
    args.network = network_.get();

    // Results first: to make an object of Python's may run any other code.
    py::tuple gradients(static_cast<size_t>(given));
    SmallVector<ArrayView> made(static_cast<size_t>(given));
    // The gradient of a place, of a shape for others and here; null where it is not wanted.
    const auto make = [&](Py_ssize_t place, bool wanted, const Shape& outside, const Shape& inside,
                          bool swapped = false) -> DLTensor* {
      ArrayView& view = made[static_cast<size_t>(place)];
      py::object object = py::none();
      if (wanted) {
        void* data = nullptr;
        object = results.make(dtype, outside, &data, swapped);
        view.view(data, dtype, inside);
      }
      PyTuple_SET_ITEM(gradients.ptr(), place, object.release().ptr());
      return wanted ? &view.tensor : nullptr;
    };
    const bool swapped = axes == Axes::batch_first;
    const int64_t I = network_->input_size();
    const Shape shape_of_x = cell ? Shape{B, I} : swapped ? Shape{B, T, I} : Shape{T, B, I};
    args.dx = make(0, wants_dx, shape_of_x, {T, B, I}, swapped);
    std::vector<DLTensor*> dparameters;
    for (const Shape& shape : parameters_) {
      const auto place = static_cast<Py_ssize_t>(1 + dparameters.size());
      dparameters.push_back(make(place, saved_at(place) != Py_None, shape, shape));
    }
    args.dparameters = dparameters.data();
    RunStates dstates(*network_);
    for (int s = 0; s < states_; ++s) {
      const int64_t n = network_->runs.front().state_size(s);
      const Shape whole{static_cast<int64_t>(network_->runs.size()), B, n};
      const DLTensor* const dstate = make(first_state + s, saved_at(first_state + s) != Py_None,
                                          cell ? Shape{B, n} : whole, whole);
      if (dstate != nullptr) dstates.cut_runs(s, *dstate);
    }
    args.dstates = dstates.list();

    if (!see_steps(x, saved_at(0), axes) || x.shape[0] != T || x.shape[1] != B) return py::none();
    args.x = &x.tensor;
    SmallVector<ArrayView> weights(parameters_.size());
    std::vector<const DLTensor*> weight_list(parameters_.size(), nullptr);
    for (size_t i = 0; i < weights.size(); ++i) {
      PyObject* const weight = saved_at(1 + static_cast<Py_ssize_t>(i));
      if (!see_given(weight, false, weights[i], weight_list[i])) return py::none();
    }
    args.parameters = weight_list.data();
    ArrayView lengths, reserve, dy;
    if (!see_given(saved_at(given), false, lengths, args.lengths)) return py::none();
    if (!reserve.see(saved_at(given + 1), false) || !is_bytes(reserve)) return py::none();
    args.reserve = reserve.tensor.data;
    args.reserve_bytes = static_cast<size_t>(reserve.shape[0]);
    PyObject* const dy_object = cell ? Py_None : PyTuple_GET_ITEM(upstream, 0);
    if (dy_object != Py_None) {
      if (!see_steps(dy, dy_object, axes)) return py::none();
      args.dy = &dy.tensor;
    }
    StateViews after(*network_);
    for (int s = 0; s < states_; ++s) {
      PyObject* const gradient = PyTuple_GET_ITEM(upstream, s + (cell ? 0 : 1));
      if (!after.see(s, gradient, false, axes, true)) return py::none();
    }
    args.dstates_n = after.parts.list();
    if (fusedrnn_backward(&args) != FUSEDRNN_OK) return py::none();
    return gradients;
  }

 private:
  static bool see_steps(ArrayView& array, PyObject* object, Axes axes) {
    return array.see(object, false) && take_steps(array, axes, true);
  }

  static bool is_bytes(const ArrayView& array) {
    const DLTensor& t = array.tensor;
    return same_type(t.dtype, {kDLUInt, 8, 1}) && t.ndim == 1 && array.is_dense();
  }

  NetworkPointer network_;
  std::vector<Shape> parameters_;
  int64_t work_;  // multiply-adds of a step of one sequence
  int states_;
};

}  // namespace

void register_plain_calls(py::module_& m) {
  m.def(
      "make_plain_call", &make_fast<PlainCall, std::shared_ptr<Network>, py::tuple, bool>,
      py::arg("network"), py::arg("names"), py::arg("of_modules"),
      "A function of (parameters, x, state, axes, save, lengths=None, resets=None): a call with "
      "plain arrays on the CPU and parameters found in a dict by these names, None where they "
      "are not. axes: 0 of x [T, B, I], 1 of [B, T, I], 2 of a cell's [B, I], 3 of a step of "
      "layers, which alone takes resets [B], where sequences begin. save: False for (y, state), of "
      "a cell the state alone, True for (y, *states, reserve), of a cell without y. "
      "of_modules: of fusedrnn.torch's; those of layers leave tensors alone that require a "
      "gradient.");
  m.def(
      "make_frozen_call",
      [](const std::shared_ptr<fusedrnn_frozen>& frozen) {
        return make_fast<PlainCall>(NetworkPointer(frozen, &frozen->network), py::tuple(), false,
                                    frozen);
      },
      py::arg("frozen"), "The same over packed weights: parameters are None, and save is False.");
  m.def(
      "make_plain_backward", &make_fast<PlainBackward, std::shared_ptr<Network>>,
      py::arg("network"),
      "A function of (saved, upstream, axes, wants_dx): gradients of such a call, of a batch, "
      "that saved its reserve, where it is small and the arrays are plain; else None. saved: (x, "
      "*parameters, *states, lengths, reserve), each None where it was not there; upstream: "
      "gradients of what the call returned, or None. Gradients are in the places of saved but the "
      "last two.");
}

}  // namespace fusedrnn::bindings
