// freeze and Frozen: weights packed once, and passes over sequences with them.
#include "bindings/frozen.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/array_arguments.h"
#include "bindings/gil.h"
#include "bindings/register.h"
#include "bindings/tape.h"
#include "core/error.h"
#include "core/tensor.h"
#include "core/validate.h"

namespace fusedrnn::bindings {

// Memory for steps of up to `batch` sequences.
class Frozen::Workspace {
 public:
  Workspace(const fusedrnn_frozen& frozen, int64_t batch)
      : batch_(batch), block_(step_workspace(frozen, batch)) {}
  int64_t batch() const { return batch_; }
  void* data() const { return block_.data(); }

 private:
  int64_t batch_;
  Block block_;
};

// One that is large enough, while it lives.
class Frozen::Lease {
 public:
  Lease(const Frozen& frozen, int64_t batch)
      : spare_(frozen.spare_), taken_(spare_.exchange(nullptr, std::memory_order_acquire)) {
    if (taken_ == nullptr || taken_->batch() < batch) {
      taken_ = std::make_unique<Workspace>(frozen.handle(), batch);
    }
  }
  ~Lease() { delete spare_.exchange(taken_.release(), std::memory_order_acq_rel); }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  void* data() const { return taken_->data(); }

 private:
  std::atomic<Workspace*>& spare_;
  std::unique_ptr<Workspace> taken_;
};

Frozen::Frozen(std::shared_ptr<const fusedrnn_frozen> handle)
    : handle_(std::move(handle)), work_(step_work(handle_->network)) {}

Frozen::~Frozen() { delete spare_.load(std::memory_order_acquire); }

bool Frozen::releases_gil(int64_t B) const {
  // From about ten microseconds on: to give the GIL away and to come back for it costs a tenth of
  // one where nobody wants it, and up to Python's switching interval where somebody does.
  constexpr int64_t kGilWork = int64_t{1} << 18;
  return work_ * B >= kGilWork;
}

void Frozen::step(const Arrays& arrays) const {
  if (arrays.B == 0) return;
  const Network& n = network();
  const Lease workspace(*this, arrays.B);
  constexpr size_t kFew = 32;  // states: no memory for these
  std::array<const void*, kFew> few_prev{};
  std::array<void*, kFew> few_next{};
  std::vector<const void*> many_prev;
  std::vector<void*> many_next;
  const auto count = static_cast<size_t>(n.num_states);
  if (count > kFew) {
    many_prev.resize(count);
    many_next.resize(count);
  }
  const void** prev = count > kFew ? many_prev.data() : few_prev.data();
  void** next = count > kFew ? many_next.data() : few_next.data();
  n.for_states([&](const Run& run, int s, int number) {
    const int64_t offset =
        (&run - n.runs.data()) * arrays.B * run.state_size(s) * item_size(n.dtype);
    const char* before = static_cast<const char*>(arrays.prev[s]);
    prev[number] = before == nullptr ? nullptr : before + offset;
    next[number] = static_cast<char*>(arrays.next[s]) + offset;
  });
  step_with_threads(*handle_, {arrays.B, arrays.x, prev, next}, workspace.data());
  std::memcpy(arrays.y, next[n.runs.back().first_state],
              static_cast<size_t>(arrays.B * n.output_size() * item_size(n.dtype)));
}

namespace {

// The network with its weights kept in another type.
NetworkPointer with_weight_dtype(const NetworkPointer& network, py::handle weight_dtype) {
  if (weight_dtype.is_none()) return network;
  const std::string name = str_argument("weight_dtype", weight_dtype);
  if (network->dtype != Dtype::float32 || (name != "bfloat16" && name != "int8")) {
    throw_value_error(
        expected("weight_dtype", "None, or for float32 'bfloat16' or 'int8'", "'" + name + "'"));
  }
  auto changed = std::make_shared<Network>(*network);
  changed->compute = name == "int8" ? Compute::int8 : Compute::bfloat16;
  for (Run& run : changed->runs) run.problem.compute = changed->compute;
  return changed;
}

std::shared_ptr<Frozen> freeze(const std::shared_ptr<Network>& given, py::handle parameters,
                               py::handle weight_dtype) {
  const NetworkPointer network = with_weight_dtype(given, weight_dtype);
  const std::vector<Name> names = parameter_names(*network);
  const Objects objects("parameters", parameters, names.size());
  Arrays<InputArray> arrays(names.size());
  std::vector<const DLTensor*> tensors;
  const auto describe = [&] {
    tensors.clear();
    for (const auto& array : arrays) tensors.push_back(array->tensor());
  };
  for (size_t i = 0; i < names.size(); ++i) {
    arrays[i].emplace(names[i], objects[i], ElementKind::floating);
  }
  describe();
  check_parameters_to_freeze(*network, tensors.data(), Layout::any);
  for (auto& array : arrays) array->make_readable();
  describe();
  fusedrnn_frozen* frozen = nullptr;
  fusedrnn_status status = FUSEDRNN_OK;
  {
    const ReleasedGil no_gil;
    status = fusedrnn_freeze(network.get(), tensors.data(), &frozen);
  }
  throw_on_failure(status);
  return std::make_shared<Frozen>(
      std::shared_ptr<const fusedrnn_frozen>(frozen, fusedrnn_frozen_free));
}

py::tuple forward_frozen(const std::shared_ptr<Frozen>& frozen, py::handle x, py::handle states,
                         py::handle lengths, py::handle resets, py::handle y, py::handle states_n) {
  auto inputs = std::make_unique<PassInputs>(x, py::none(), std::vector<Name>(), lengths, resets);
  const NetworkPointer network(frozen, &frozen->network());
  const py::tuple results =
      forward_pass(network, std::move(inputs), true, states, false, y, states_n, &frozen->handle());
  return py::make_tuple(results[0], results[1]);
}

}  // namespace

void register_frozen(py::module_& m) {
  py::class_<Frozen, std::shared_ptr<Frozen>>(m, "Frozen", py::is_final(),
                                              "A network with packed weights; immutable.")
      .def(py::init(&freeze), py::arg("network"), py::arg("parameters"),
           py::arg("weight_dtype") = py::none())
      .def("forward", &forward_frozen, py::arg("x"), py::arg("states") = py::none(),
           py::arg("lengths") = py::none(), py::arg("resets") = py::none(),
           py::arg("y") = py::none(), py::arg("states_n") = py::none(),
           "Runs over a sequence: (y, states).")
      .def(
          "make_step", [](std::shared_ptr<Frozen> frozen) { return make_step(std::move(frozen)); },
          "A function of (x_t, state, out), a step of plain NumPy arrays; None where they are "
          "not.");
}

}  // namespace fusedrnn::bindings
