// Calls of PyTorch's tensors on the CPU, of layers and cells in inference: the whole way in and out
// without a Python call (bindings/dlpack_exchange.h).
//
// As a step of NumPy arrays (bindings/frozen.cpp) this does nothing but recognise arrays that can
// be used as they lie. Whatever else comes, fusedrnn.torch takes the long way with, which also
// finds the words for what is wrong.
#include <algorithm>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/dlpack_exchange.h"
#include "bindings/gil.h"
#include "bindings/pass.h"
#include "bindings/register.h"
#include "core/error.h"
#include "core/frozen.h"
#include "core/memory.h"

namespace fusedrnn::bindings {
namespace {

constexpr const char* kTensorCallName = "fusedrnn.tensor_call";

// How the arrays of a call lie; what has no axis B gets one.
enum class Axes {
  steps = 0,        // x [T,B,I] or [T,I], states [R,B,n] or [R,n]
  batch_first = 1,  // x [B,T,I], else as these
  step = 2,         // of a cell: x [B,I] or [I], states [B,n] or [n]
};

// A tensor whose axes may be changed. Not movable, because `tensor` points into the struct.
struct View {
  DLTensor tensor{};
  int64_t shape[kMaxRank + 1];
  int64_t strides[kMaxRank + 1];
  SeenArray seen;

  View() = default;
  View(const View&) = delete;
  View& operator=(const View&) = delete;

  bool see(PyObject* object, bool keeps) {
    if (!seen.see(object, keeps)) return false;
    set(seen.tensor());
    return true;
  }
  void set(const DLTensor& other) {
    tensor = other;
    for (int i = 0; i < other.ndim; ++i) {
      shape[i] = other.shape[i];
      strides[i] = stride_of(other, i);
    }
    tensor.shape = shape;
    tensor.strides = strides;
  }
  void insert_axis(int axis) {
    for (int i = tensor.ndim++; i > axis; --i) {
      shape[i] = shape[i - 1];
      strides[i] = strides[i - 1];
    }
    shape[axis] = strides[axis] = 1;
  }
  void swap_axes() {
    std::swap(shape[0], shape[1]);
    std::swap(strides[0], strides[1]);
  }
};

// One array [R,B,n] for each state of the cell, and a part of it for each run.
struct StateViews {
  explicit StateViews(const Network& network)
      : parts(static_cast<size_t>(network.num_states)), list(parts.size(), nullptr) {}

  // Whether the state's view is of all runs.
  bool cut(const Network& network, int state) {
    const View& whole = views[state];
    if (whole.tensor.ndim != 3 || whole.shape[0] != static_cast<int64_t>(network.runs.size())) {
      return false;
    }
    for (const Run& run : network.runs) {
      const auto number = static_cast<size_t>(run.first_state + state);
      DLTensor& part = parts[number];
      part = whole.tensor;
      part.ndim = 2;
      ++part.shape;
      ++part.strides;
      const int64_t offset = network.number_of(run) * whole.strides[0] * item_size(part);
      part.data = static_cast<char*>(data_of(whole.tensor)) + offset;
      part.byte_offset = 0;
      list[number] = &part;
    }
    return true;
  }

  View views[kMaxStates];
  std::vector<DLTensor> parts;
  std::vector<DLTensor*> list;
};

class TensorCall {
 public:
  // `names`: of each parameter of the network in a module's dict; None of one that is not there.
  TensorCall(NetworkPointer network, py::tuple names)
      : network_(std::move(network)),
        names_(std::move(names)),
        work_(step_work(*network_)),
        states_(states_of_runs(*network_)) {
    const auto count = static_cast<size_t>(network_->num_parameters);
    if (names_.size() != count) refuse_value("names", std::to_string(count), names_.size());
  }

  // (y, state), of a cell the state alone; None where the arguments are not what this knows.
  py::object run(PyObject* parameters, PyObject* x_object, PyObject* state_objects,
                 Axes axes) const {
    const ExchangeTable* const library = exchange_table(Py_TYPE(x_object));
    if (library == nullptr || !PyDict_CheckExact(parameters)) return py::none();
    View x;
    if (!x.see(x_object, false)) return py::none();
    const int rank = axes == Axes::step ? 2 : 3;
    const bool batched = x.tensor.ndim == rank;
    if (!batched && x.tensor.ndim != rank - 1) return py::none();
    const auto find_axes = [&] {
      if (!batched) x.insert_axis(rank - 2);
      if (axes == Axes::step) x.insert_axis(0);
      if (axes == Axes::batch_first && batched) x.swap_axes();
    };
    find_axes();
    const int64_t T = x.shape[0], B = x.shape[1];
    if (T == 0 || B == 0 || !steps_fit(*network_, T, B)) return py::none();

    // First of all: to make an object of Python's may run any other code.
    const DLDataType dtype = dtype_info(network_->dtype).dlpack;
    const int64_t R = static_cast<int64_t>(network_->runs.size()), W = network_->output_size();
    py::object y_object;
    View y;
    Block scratch;
    if (axes == Axes::step) {  // what a cell returns is its state
      int64_t shape[] = {1, B, W};
      scratch = Block(static_cast<size_t>(B * W * dtype.bits / 8));
      y.set({scratch.data(), {kDLCPU, 0}, 3, dtype, shape, nullptr, 0});
    } else {
      const bool swapped = axes == Axes::batch_first && batched;
      y_object = make(*library, dtype,
                      batched ? swapped ? Shape{B, T, W} : Shape{T, B, W} : Shape{T, W}, y);
      if (!batched) y.insert_axis(1);
      if (swapped) y.swap_axes();
    }
    StateViews after(*network_);
    py::object states[kMaxStates];
    for (int s = 0; s < states_; ++s) {
      const int64_t n = network_->runs.front().state_size(s);
      Shape shape{};
      if (axes != Axes::step) shape.add(R);
      if (batched) shape.add(B);
      shape.add(n);
      View& view = after.views[s];
      states[s] = make(*library, dtype, shape, view);
      if (axes == Axes::step) view.insert_axis(0);
      if (!batched) view.insert_axis(1);
      after.cut(*network_, s);
    }

    // Without the GIL somebody may give a tensor other memory while this one is read.
    const bool long_work = T > kGilWork || B > kGilWork || T * B > kGilWork / work_;
    if (!x.see(x_object, long_work) || x.tensor.ndim != (batched ? rank : rank - 1)) {
      return py::none();
    }
    find_axes();
    if (x.shape[0] != T || x.shape[1] != B) return py::none();
    std::vector<SeenArray> weights(names_.size());
    std::vector<const DLTensor*> weight_list(names_.size(), nullptr);
    for (size_t i = 0; i < weights.size(); ++i) {
      PyObject* const name = PyTuple_GET_ITEM(names_.ptr(), static_cast<Py_ssize_t>(i));
      if (name == Py_None) continue;
      PyObject* const weight = PyDict_GetItemWithError(parameters, name);
      if (weight == nullptr || !weights[i].see(weight, long_work)) {
        PyErr_Clear();
        return py::none();
      }
      weight_list[i] = &weights[i].tensor();
    }

    StateViews before(*network_);
    if (state_objects != Py_None) {
      const bool many = PyTuple_CheckExact(state_objects);
      if (many ? PyTuple_GET_SIZE(state_objects) != states_ : states_ != 1) return py::none();
      for (int s = 0; s < states_; ++s) {
        View& view = before.views[s];
        if (!view.see(many ? PyTuple_GET_ITEM(state_objects, s) : state_objects, long_work)) {
          return py::none();
        }
        if (axes == Axes::step) view.insert_axis(0);
        if (!batched) view.insert_axis(1);
        if (!before.cut(*network_, s)) return py::none();
      }
    }

    fusedrnn_forward_args args{};
    args.size = sizeof args;
    args.network = network_.get();
    args.x = &x.tensor;
    args.parameters = weight_list.data();
    if (state_objects != Py_None) args.states = before.list.data();
    args.y = &y.tensor;
    args.states_n = after.list.data();
    fusedrnn_status status = FUSEDRNN_OK;
    {
      std::optional<ReleasedGil> no_gil;
      if (long_work) no_gil.emplace();
      status = fusedrnn_forward(&args);
    }
    if (status != FUSEDRNN_OK) return py::none();
    py::object state = std::move(states[0]);
    if (states_ > 1) {
      py::tuple all(static_cast<size_t>(states_));
      PyTuple_SET_ITEM(all.ptr(), 0, state.release().ptr());
      for (int s = 1; s < states_; ++s) PyTuple_SET_ITEM(all.ptr(), s, states[s].release().ptr());
      state = std::move(all);
    }
    return axes == Axes::step ? state : py::make_tuple(std::move(y_object), std::move(state));
  }

 private:
  static py::object make(const ExchangeTable& library, DLDataType dtype, const Shape& shape,
                         View& view) {
    void* data = nullptr;
    py::object array = new_array(library, dtype, shape, &data);
    view.set(
        {data, {kDLCPU, 0}, shape.rank(), dtype, const_cast<int64_t*>(shape.begin()), nullptr, 0});
    return array;
  }

  NetworkPointer network_;
  py::tuple names_;
  int64_t work_;  // multiply-adds of a step of one sequence
  int states_;
};

PyObject* tensor_call(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  try {
    if (count != 4) {
      throw_type_error("tensor_call: expected 4 arguments, got " + std::to_string(count));
    }
    const auto* call = static_cast<const TensorCall*>(PyCapsule_GetPointer(self, kTensorCallName));
    const int64_t axes = int_argument("axes", arguments[3]);
    if (axes < 0 || axes > 2) refuse_value("axes", "0, 1 or 2", axes);
    return call->run(arguments[0], arguments[1], arguments[2], static_cast<Axes>(axes))
        .release()
        .ptr();
  } catch (const std::exception&) {
    py::detail::try_translate_exceptions();
    return nullptr;
  }
}

// PyMethodDef has one type of function for all calling conventions.
PyMethodDef tensor_call_method = {
    "tensor_call", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&tensor_call)),
    METH_FASTCALL, "tensor_call(parameters, x, state, axes): a call of plain tensors, or None."};

py::object make_tensor_call(const std::shared_ptr<Network>& network, py::tuple names) {
  auto call = std::make_unique<TensorCall>(network, std::move(names));
  const py::capsule self(call.get(), kTensorCallName,
                         [](void* p) { delete static_cast<TensorCall*>(p); });
  call.release();
  PyObject* function = PyCFunction_NewEx(&tensor_call_method, self.ptr(), nullptr);
  if (function == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(function);
}

}  // namespace

void register_tensor_calls(py::module_& m) {
  m.def(
      "make_tensor_call", &make_tensor_call, py::arg("network"), py::arg("names"),
      "A function of (parameters, x, state, axes): a call in inference of PyTorch's plain tensors "
      "on the CPU, with parameters found in a dict by these names; None where they are not. "
      "axes: 0 of x [T, B, I], 1 of [B, T, I], 2 of a cell's [B, I].");
}

}  // namespace fusedrnn::bindings
