// FrozenStack: a step of all layers at once, with arrays of any kind and layout.
#include "core/frozen_stack.h"

#include <cstring>
#include <optional>
#include <utility>

#include "bindings/array_export.h"
#include "bindings/array_import.h"
#include "bindings/frozen.h"
#include "bindings/numpy_types.h"
#include "bindings/register.h"
#include "bindings/released_gil.h"
#include "core/copy.h"
#include "core/tensor.h"
#include "core/validate_step.h"

namespace fusedrnn::bindings {
namespace {

// From about ten microseconds on: to give the GIL away and to come back for it costs a tenth of
// one where nobody wants it, and up to Python's switching interval where somebody does.
constexpr int64_t kGilWork = int64_t{1} << 18;

std::shared_ptr<FrozenStack> make_stack(const py::list& layers) {
  FrozenStack::Layers handles;
  for (const py::handle layer : layers) handles.push_back(py::cast<const Frozen&>(layer).handle);
  return std::make_shared<FrozenStack>(std::move(handles));
}

// Everything dense and in row-major order, so that a step can read it; null where not given.
const void* dense_elements(InputArray& array) {
  if (array.tensor() == nullptr) return nullptr;
  array.make_contiguous();
  return data_of(*array.tensor());
}

void copy_rows(const py::array& from, const DLTensor& to) {
  const int64_t item = item_size(to);
  const int last = to.ndim - 1;
  const size_t row_bytes = static_cast<size_t>(to.shape[last] * item);
  const int64_t layers = to.ndim == 3 ? to.shape[0] : 1;
  const int64_t layer_stride = to.ndim == 3 ? stride_of(to, 0) : 0;
  const int64_t rows = to.shape[last - 1];
  const char* source = static_cast<const char*>(from.data());
  for (int64_t l = 0; l < layers; ++l) {
    for (int64_t b = 0; b < rows; ++b, source += row_bytes) {
      const int64_t offset = l * layer_stride + b * stride_of(to, last - 1);
      std::memcpy(static_cast<char*>(data_of(to)) + offset * item, source, row_bytes);
    }
  }
}

// Writes into `out`, where it is given, after the step: it may share memory with what was read.
class StepOutputs {
 public:
  StepOutputs(const FrozenStack& stack, int64_t B, py::handle y, py::handle h, py::handle c) {
    if (y.is_none()) return;
    const Dtype dtype = stack.dtype();
    y_.emplace("out[0]", y, dtype, Shape{});
    tensors_.y = y_->tensor();
    const py::handle states[kMaxStates] = {h, c};
    for (int s = 0; s < stack.states(); ++s) {
      states_[s].emplace(out_state_name(stack.states(), s), states[s], dtype, Shape{});
      tensors_.state_n[s] = states_[s]->tensor();
    }
    check_step_outputs(stack, tensors_, B);
  }

  void write(const py::array& y, const py::array* states) const {
    if (!y_) return;
    copy_rows(y, *tensors_.y);
    for (int s = 0; s < kMaxStates && states_[s]; ++s) copy_rows(states[s], *tensors_.state_n[s]);
  }

 private:
  std::optional<OutputArray> y_, states_[kMaxStates];
  StepTensors tensors_;
};

py::tuple step(const FrozenStack& stack, py::handle x_object, py::handle h_object,
               py::handle c_object, py::handle y_object, py::handle h_n_object,
               py::handle c_n_object) {
  const int count = stack.states();
  InputArray x("x_t", x_object, ElementKind::floating);
  InputArray h(state_name(count, 0), h_object, ElementKind::floating);
  InputArray c(state_name(count, 1), c_object, ElementKind::floating);
  StepTensors tensors;
  tensors.x = x.tensor();
  tensors.state[0] = h.tensor();
  tensors.state[1] = c.tensor();
  const int64_t B = check_step_inputs(stack, tensors);
  const StepOutputs out(stack, B, y_object, h_n_object, c_n_object);

  const int64_t L = stack.num_layers(), H = stack.hidden_size();
  const py::dtype dtype = numpy_dtype(stack.dtype());
  py::array y = empty_array(dtype, {B, H});
  py::array states[kMaxStates];
  for (int s = 0; s < count; ++s) states[s] = empty_array(dtype, {L, B, H});
  StackStep call;
  call.B = B;
  call.x = dense_elements(x);
  call.prev[0] = dense_elements(h);
  call.prev[1] = dense_elements(c);
  call.y = y.mutable_data();
  for (int s = 0; s < count; ++s) call.next[s] = states[s].mutable_data();
  if (releases_gil(stack, B)) {
    const ReleasedGil no_gil;
    stack.step(call);
  } else {
    stack.step(call);
  }
  out.write(y, states);
  return py::make_tuple(y, states[0], count > 1 ? py::object(states[1]) : py::none());
}

}  // namespace

bool releases_gil(const FrozenStack& stack, int64_t B) { return stack.work() * B >= kGilWork; }

void register_frozen_stack(py::module_& m) {
  py::class_<FrozenStack, std::shared_ptr<FrozenStack>>(
      m, "FrozenStack", py::is_final(), "Frozen layers of one direction, to be stepped together.")
      .def(py::init(&make_stack), py::arg("layers"))
      .def("step", &step, py::arg("x_t"), py::arg("h"), py::arg("c"), py::arg("y"), py::arg("h_n"),
           py::arg("c_n"), "One step: (y, h, c or None), also written to y, h_n and c_n if given.")
      .def(
          "fast_step",
          [](std::shared_ptr<FrozenStack> stack) { return make_fast_step(std::move(stack)); },
          "A function of (x_t, state, out) for plain NumPy arrays; None where they are not.");
}

}  // namespace fusedrnn::bindings
