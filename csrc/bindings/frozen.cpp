// Frozen: a network with its weights packed once, its passes over sequences, and its steps.
#include <pybind11/numpy.h>

#include <atomic>
#include <cstring>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/fast_function.h"
#include "bindings/gil.h"
#include "bindings/new_arrays.h"
#include "bindings/numpy_types.h"
#include "bindings/pass.h"

#include "bindings/register.h"
#include "core/error.h"
#include "core/frozen.h"
#include "core/memory.h"
#include "core/model_file.h"
#include "core/tensor.h"
#include "core/validate.h"

namespace fusedrnn::bindings {
namespace {

using Frozen = fusedrnn_frozen;

// The network with its weights kept in another type.
NetworkPointer with_weight_dtype(const NetworkPointer& network, py::handle weight_dtype) {
  if (weight_dtype.is_none()) return network;
  const std::string name = str_argument("weight_dtype", weight_dtype);
  if (network->dtype != Dtype::float32 || (name != "bfloat16" && name != "int8")) {
    refuse_value("weight_dtype", "None, or for float32 'bfloat16' or 'int8'", "'" + name + "'");
  }
  auto changed = std::make_shared<Network>(*network);
  changed->compute = name == "int8" ? Compute::int8 : Compute::bfloat16;
  for (Run& run : changed->runs) run.problem.compute = changed->compute;
  return changed;
}

std::shared_ptr<Frozen> freeze(const std::shared_ptr<Network>& given, py::handle parameters,
                               py::handle weight_dtype, bool batch_first) {
  const NetworkPointer network = with_weight_dtype(given, weight_dtype);
  Arrays<InputArray> arrays = read_parameters(parameters, parameter_names(*network), nullptr);
  check_parameters_to_freeze(*network, arrays.tensors(), Layout::any);
  arrays.make_readable();
  const ReleasedGil no_gil;
  check_parameters_to_freeze(*network, arrays.tensors(), Layout::dense);
  std::unique_ptr<Frozen> frozen = fusedrnn::freeze(*network, arrays.tensors());
  frozen->batch_first = batch_first;
  return frozen;
}

NetworkPointer network_of(const std::shared_ptr<Frozen>& frozen) {
  return {frozen, &frozen->network};
}

py::tuple forward_frozen(const std::shared_ptr<Frozen>& frozen, py::handle x, py::handle states,
                         py::handle masks, py::handle y, py::handle states_n,
                         py::handle sequences) {
  auto inputs = std::make_unique<PassInputs>(x, py::none(), std::vector<Name>(), masks);
  return forward_pass(network_of(frozen), std::move(inputs), true, states, false, y, states_n,
                      sequences, frozen.get());
}

// Paths are bytes, as the system has them.
void save(const std::shared_ptr<Frozen>& frozen, const py::bytes& path) {
  const std::string name = path;
  const ReleasedGil no_gil;
  model_file::save(*frozen, name);
}

std::shared_ptr<Frozen> load(const py::bytes& path) {
  const std::string name = path;
  const ReleasedGil no_gil;
  return model_file::load(name);
}

// --- steps of plain arrays ---
//
// A step recognises arrays that can be used as they lie (ArrayView::see), and does nothing else.
// For whatever else comes the Python layer makes such arrays, and finds the words for wrong ones.

using NumPy = py::detail::npy_api;

constexpr int kReadable = NumPy::NPY_ARRAY_C_CONTIGUOUS_ | NumPy::NPY_ARRAY_ALIGNED_;
constexpr int kWritable = kReadable | NumPy::NPY_ARRAY_WRITEABLE_;

// The bytes of a dense array.
struct Bytes {
  char* data = nullptr;
  size_t size = 0;

  bool apart_from(const Bytes& other) const {
    return data + size <= other.data || other.data + other.size <= data;
  }
};

// One [L,B,n] for each state of the cell; of `prev`, null: zero. `next` of a state may be its
// `prev`. y gets the output last, and may share memory with what is read.
struct StepArrays {
  int64_t B = 0;
  Bytes x, y, prev[kMaxStates], next[kMaxStates];
  std::optional<ArrayView> kept[3 + 2 * kMaxStates];  // those that are not NumPy's, and resets
  int num_kept = 0;
  const TensorView* resets = nullptr;  // where sequences begin, bytes [B]; null: nowhere

  // How many of the sequences begin.
  int64_t beginning() const {
    int64_t count = 0;
    for (int64_t b = 0; resets != nullptr && b < B; ++b) count += begins(b) ? 1 : 0;
    return count;
  }
  bool begins(int64_t b) const {
    return static_cast<const uint8_t*>(resets->tensor.data)[b * resets->strides[0]] != 0;
  }
};

class FastStep {
 public:
  static constexpr const char* kName = "fast_step";
  static constexpr Py_ssize_t kFewestArguments = 3, kArguments = 4;

  explicit FastStep(std::shared_ptr<const Frozen> frozen)
      : frozen_(std::move(frozen)),
        network_(frozen_->network),
        dtype_(dtype_info(network_.dtype).dlpack),
        descr_(numpy_dtype(network_.dtype)),
        item_(item_size(network_.dtype)),
        work_(step_work(network_)),
        states_(states_of_runs(network_)),
        I_(network_.input_size()),
        width_(network_.output_size()),
        L_(static_cast<int64_t>(network_.runs.size())) {
    for (int s = 0; s < states_; ++s) sizes_[s] = network_.runs.front().state_size(s);
  }
  ~FastStep() {
    for (const auto& spare : spares_) delete spare.load(std::memory_order_acquire);
  }
  FastStep(const FastStep&) = delete;
  FastStep& operator=(const FastStep&) = delete;

  // (y, state), or None where the arguments are not what this knows.
  py::object call(PyObject* const* arguments) const {
    PyObject *const x = arguments[0], *const state = arguments[1], *const out = arguments[2],
                    *const resets = arguments[3];
    StepArrays arrays;
    if (!see(x, Use::read, {kAnyExtent, I_}, arrays, arrays.x)) return py::none();
    arrays.B = static_cast<int64_t>(arrays.x.size) / (I_ * item_);
    if (state != Py_None && !see_states(state, Use::read, arrays, arrays.prev)) return py::none();
    if (resets != Py_None && !see_resets(resets, arrays)) return py::none();
    if (out == Py_None) return step_into_new_arrays(x, arrays);
    if (!see_out(out, arrays) || !may_write(arrays)) return py::none();
    step(arrays);
    return py::reinterpret_borrow<py::object>(out);
  }

 private:
  struct Workspace {
    Workspace(const Frozen& frozen, int64_t B)
        : steps(frozen, B),
          prev(static_cast<size_t>(frozen.network.num_states)),
          next(prev.size()) {}

    const FrozenSteps steps;
    std::vector<const void*> prev;
    std::vector<void*> next;
  };

  enum class Use { read, write };

  // Whether `object` is an array of our dtype and of this shape that can be used so. NumPy's are
  // not kept: who calls keeps them, and they lie where they lie.
  bool see(PyObject* object, Use use, std::initializer_list<int64_t> shape, StepArrays& arrays,
           Bytes& bytes) const {
    const auto rank = static_cast<int>(shape.size());
    const int64_t* extents = nullptr;
    if (is_exactly_numpy(object)) {
      const auto* array = py::detail::array_proxy(object);
      const int needed = use == Use::write ? kWritable : kReadable;
      if (array->nd != rank || (array->flags & needed) != needed || !is_ours(array->descr)) {
        return false;
      }
      extents = array->dimensions;
      bytes.data = array->data;
    } else {
      ArrayView& array = arrays.kept[arrays.num_kept++].emplace();
      if (!array.see(object, true) || !same_type(array.tensor.dtype, dtype_) ||
          array.tensor.ndim != rank || !array.is_dense() || !array.is_aligned() ||
          (use == Use::write && array.read_only) || wants_gradient(object)) {
        return false;
      }
      extents = array.shape;
      bytes.data = static_cast<char*>(array.tensor.data);
    }
    int64_t size = item_;
    for (const int64_t wanted : shape) {
      if (*extents != wanted && wanted != kAnyExtent) return false;
      size *= *extents++;
    }
    bytes.size = static_cast<size_t>(size);
    return true;
  }

  bool is_ours(PyObject* descr) const {
    DLDataType dtype;
    return descr == descr_.ptr() || (plain_dtype(descr, dtype) && same_type(dtype, dtype_));
  }

  // Of what a user gives for all states: one array, or a tuple of as many. A tuple cannot change
  // while the GIL is released; a list would have to be copied. Where they are only read, None may
  // stand for each.
  bool see_states(PyObject* states, Use use, StepArrays& arrays, Bytes* bytes) const {
    const bool is_tuple = PyTuple_CheckExact(states) && PyTuple_GET_SIZE(states) == states_;
    if (states_ > 1 && !is_tuple) return false;
    for (int s = 0; s < states_; ++s) {
      PyObject* state = states_ == 1 ? states : PyTuple_GET_ITEM(states, s);
      if (state == Py_None && use == Use::read) continue;
      if (!see(state, use, {L_, arrays.B, sizes_[s]}, arrays, bytes[s])) return false;
    }
    return true;
  }

  bool see_resets(PyObject* resets, StepArrays& arrays) const {
    ArrayView& flags = arrays.kept[arrays.num_kept++].emplace();
    arrays.resets = &flags;
    return flags.see(resets, true) && flags.is_flags() && flags.tensor.ndim == 1 &&
           flags.shape[0] == arrays.B;
  }

  bool see_out(PyObject* out, StepArrays& arrays) const {
    return PyTuple_CheckExact(out) && PyTuple_GET_SIZE(out) == 2 &&
           see(PyTuple_GET_ITEM(out, 0), Use::write, {arrays.B, width_}, arrays, arrays.y) &&
           see_states(PyTuple_GET_ITEM(out, 1), Use::write, arrays, arrays.next);
  }

  bool may_write(const StepArrays& arrays) const {
    for (int s = 0; s < states_; ++s) {
      const Bytes& next = arrays.next[s];
      if (!next.apart_from(arrays.y) || !next.apart_from(arrays.x)) return false;
      for (int other = 0; other < states_; ++other) {
        const Bytes& prev = arrays.prev[other];
        const bool in_place = other == s && prev.data == next.data;
        if (!in_place && !next.apart_from(prev)) return false;
        if (other < s && !next.apart_from(arrays.next[other])) return false;
      }
    }
    return true;
  }

  // Of the kind of x.
  py::object step_into_new_arrays(PyObject* x, StepArrays& arrays) const {
    const ResultsLike results(x);
    const auto make = [&](const Shape& shape, Bytes& bytes) {
      void* data = nullptr;
      py::object array = results.make(dtype_, shape, &data);
      bytes.data = static_cast<char*>(data);
      return array;
    };
    py::object made[1 + kMaxStates];
    made[0] = make({arrays.B, width_}, arrays.y);
    for (int s = 0; s < states_; ++s) {
      made[1 + s] = make({L_, arrays.B, sizes_[s]}, arrays.next[s]);
    }
    step(arrays);
    if (states_ > 1) made[1] = tuple_taking(made + 1, states_);
    return tuple_taking(made, 2);
  }

  // States with zeros in the place of those of sequences that begin; of all of them, none.
  Block discard(StepArrays& arrays) const {
    const int64_t beginning = arrays.beginning();
    if (beginning == 0) return {};
    size_t total = 0;
    for (int s = 0; s < states_; ++s) {
      if (beginning == arrays.B) arrays.prev[s] = {};
      total += arrays.prev[s].size;
    }
    if (total == 0) return {};
    Block block(total);
    auto* to = static_cast<char*>(block.data());
    for (int s = 0; s < states_; ++s) {
      Bytes& prev = arrays.prev[s];
      if (prev.data == nullptr) continue;
      std::memcpy(to, prev.data, prev.size);
      prev.data = to;
      to += prev.size;
      const auto row = static_cast<size_t>(sizes_[s] * item_);
      for (int64_t i = 0; i < L_ * arrays.B; ++i) {
        const auto at = static_cast<size_t>(i) * row;
        if (arrays.begins(i % arrays.B)) std::memset(prev.data + at, 0, row);
      }
    }
    return block;
  }

  void step(StepArrays& arrays) const {
    if (arrays.B == 0) return;
    const Block discarded = discard(arrays);
    std::optional<ReleasedGil> no_gil;
    if (work_ * arrays.B >= kGilWork) no_gil.emplace();
    // That of the last step, by an exchange, so that nobody waits: who finds none makes its own.
    std::atomic<Workspace*>& spare = spares_[static_cast<size_t>(arrays.B) % std::size(spares_)];
    std::unique_ptr<Workspace> space(spare.exchange(nullptr, std::memory_order_acquire));
    if (space == nullptr || space->steps.batch() != arrays.B)
      space = std::make_unique<Workspace>(*frozen_, arrays.B);
    network_.for_states([&](const Run& run, int s, int number) {
      const int64_t offset = network_.number_of(run) * arrays.B * sizes_[s] * item_;
      const auto n = static_cast<size_t>(number);
      const char* before = arrays.prev[s].data;
      space->prev[n] = before == nullptr ? nullptr : before + offset;
      space->next[n] = arrays.next[s].data + offset;
    });
    space->steps.take({arrays.B, arrays.x.data, space->prev.data(), space->next.data()});
    const auto last = static_cast<size_t>(network_.runs.back().first_state);
    std::memcpy(arrays.y.data, space->next[last], static_cast<size_t>(arrays.B * width_ * item_));
    delete spare.exchange(space.release(), std::memory_order_acq_rel);
  }

  std::shared_ptr<const Frozen> frozen_;
  const Network& network_;
  DLDataType dtype_;
  py::dtype descr_;
  int64_t item_;
  int64_t work_;  // multiply-adds of one sequence
  int states_;
  int64_t I_, width_, L_, sizes_[kMaxStates] = {};
  mutable std::atomic<Workspace*> spares_[4] = {};  // by the number of sequences
};

}  // namespace

void register_frozen(py::module_& m) {
  py::class_<Frozen, std::shared_ptr<Frozen>>(m, "Frozen", py::is_final(),
                                              "A network with packed weights; immutable.")
      .def(py::init(&freeze), py::arg("network"), py::arg("parameters"),
           py::arg("weight_dtype") = py::none(), py::arg("batch_first") = false)
      .def("forward", &forward_frozen, py::arg("x"), py::arg("states") = py::none(),
           py::arg("masks") = py::none(), py::arg("y") = py::none(),
           py::arg("states_n") = py::none(), py::arg("sequences") = py::none(),
           "Runs over a sequence: (y, states, states of every step, None).")
      .def("save", &save, py::arg("path"), "Writes a model file.")
      .def_property_readonly(
          "network",
          [](const std::shared_ptr<Frozen>& frozen) { return as_python(network_of(frozen)); },
          "The network that was frozen.")
      .def_readonly("batch_first", &Frozen::batch_first,
                    "That of the layer, which a model file notes.")
      .def("make_step", &make_fast<FastStep, std::shared_ptr<Frozen>>,
           "A function of (x_t, state, out, resets=None), a step of plain arrays; None where they "
           "are not.");
  m.def("load_frozen", &load, py::arg("path"), "Reads a model file.");
}

}  // namespace fusedrnn::bindings
