// Steps of the optimisers, and norms: NumPy arrays of parameters, their gradients and what rules
// remember.
#include <pybind11/numpy.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/array_view.h"
#include "bindings/gil.h"
#include "bindings/pass.h"
#include "bindings/register.h"
#include "core/error.h"
#include "optimizers/norm.h"
#include "optimizers/step.h"

namespace fusedrnn::bindings {

namespace {

using optimizers::Adam;
using optimizers::Numbers;
using optimizers::RmsProp;
using optimizers::Sgd;

// From about ten microseconds on.
constexpr int64_t kGilNumbers = 16384;

// The arrays of one step. Python holds them in tuples, and checked them by their names before; what
// is wrong here would crash.
class Step {
 public:
  Step(py::handle names, py::handle parameters, py::handle gradients, py::handle states, int kinds)
      : count_(py::len(names)),
        names_("names", names, count_),
        parameters_("parameters", parameters, count_),
        gradients_("gradients", gradients, count_) {
    const auto all = static_cast<size_t>(kinds);
    const Objects each("states", states, all);
    for (size_t k = 0; k < all; ++k) states_.emplace_back("states", each[k], count_);
    for (size_t i = 0; i < count_; ++i) {
      if (py::isinstance<py::array_t<double>>(parameters_[i])) {
        doubles_.push_back(numbers<double>(i));
      } else {
        floats_.push_back(numbers<float>(i));
      }
    }
    check_apart();
  }

  template <class Rule>
  void run(const Rule& rule) const {
    std::optional<ReleasedGil> no_gil;
    if (total_ >= kGilNumbers) no_gil.emplace();
    if (!floats_.empty()) step(rule, floats_);
    if (!doubles_.empty()) step(rule, doubles_);
  }

 private:
  struct Range {
    uintptr_t begin, end;
    size_t parameter;
  };

  template <class T>
  Numbers<T> numbers(size_t i) {
    if (!py::isinstance<py::array>(parameters_[i])) {
      refuse_type("parameters", "arrays", type_name(parameters_[i]));
    }
    const auto size = py::reinterpret_borrow<py::array>(parameters_[i]).size();
    Numbers<T> result{};
    result.size = size;
    result.value = data<T>(i, parameters_[i], size, true);
    result.gradient = data<T>(i, gradients_[i], size, false);
    for (size_t k = 0; k < states_.size(); ++k) {
      result.state[k] = data<T>(i, states_[k][i], size, true);
    }
    total_ += size;
    return result;
  }

  template <class T>
  T* data(size_t i, py::handle object, int64_t size, bool written) {
    const auto name = py::cast<std::string>(names_[i]);
    if (!py::isinstance<py::array_t<T>>(object)) {
      refuse_type(name.c_str(), "arrays of one dtype", type_name(object));
    }
    const auto array = py::reinterpret_borrow<py::array>(object);
    if (!is_dense(array) || array.size() != size || (written && !array.writeable())) {
      throw_value_error(name + ": expected dense arrays of one size");
    }
    void* memory = const_cast<void*>(array.data());
    const auto begin = reinterpret_cast<uintptr_t>(memory);
    if (size > 0) {
      (written ? written_ : read_).push_back({begin, begin + sizeof(T) * size_t(size), i});
    }
    return static_cast<T*>(memory);
  }

  // Nothing that is written is anything else; gradients may be of the same memory as one another.
  void check_apart() {
    const auto before = [](const Range& a, const Range& b) { return a.begin < b.begin; };
    std::sort(written_.begin(), written_.end(), before);
    for (size_t k = 1; k < written_.size(); ++k) {
      if (written_[k - 1].end > written_[k].begin) {
        throw_overlap("parameters", written_[k], written_[k - 1]);
      }
    }
    for (const Range& gradient : read_) {
      // The last one that begins before the gradient ends.
      auto other =
          std::upper_bound(written_.begin(), written_.end(), Range{gradient.end - 1, 0, 0}, before);
      if (other != written_.begin() && (--other)->end > gradient.begin) {
        throw_overlap("grads", gradient, *other);
      }
    }
  }

  [[noreturn]] void throw_overlap(const char* argument, const Range& a, const Range& b) const {
    throw_value_error(std::string(argument) + ": expected memory of its own for " +
                      py::cast<std::string>(names_[a.parameter]) + ", got that of parameter " +
                      py::cast<std::string>(names_[b.parameter]));
  }

  size_t count_;
  Objects names_, parameters_, gradients_;
  std::vector<Objects> states_;
  std::vector<Numbers<float>> floats_;
  std::vector<Numbers<double>> doubles_;
  std::vector<Range> written_, read_;
  int64_t total_ = 0;
};

template <class Rule, class... Settings>
void step_by(py::handle names, py::handle parameters, py::handle gradients, py::handle states,
             Settings... settings) {
  const Rule rule{settings...};
  Step(names, parameters, gradients, states, rule.states()).run(rule);
}

template <class T>
double sum_of_squares_of(const py::array& array) {
  const auto size = static_cast<int64_t>(array.size());
  const T* const numbers = static_cast<const T*>(array.data());
  std::optional<ReleasedGil> no_gil;
  if (size >= kGilNumbers) no_gil.emplace();
  return optimizers::sum_of_squares(numbers, size);
}

double sum_of_squares(const py::array& array) {
  if (!is_dense(array)) throw_value_error("array: expected a dense one");
  if (py::isinstance<py::array_t<double>>(array)) return sum_of_squares_of<double>(array);
  if (py::isinstance<py::array_t<float>>(array)) return sum_of_squares_of<float>(array);
  refuse_type("array", "float32 or float64", type_name(array));
}

}  // namespace

void register_optimizers(py::module_& m) {
  m.def("sum_of_squares", &sum_of_squares, py::arg("array"), "In double, of a dense array.");
  m.def("sgd_step", &step_by<Sgd, double, double, double, bool>, py::arg("names"),
        py::arg("parameters"), py::arg("gradients"), py::arg("states"), py::arg("lr"),
        py::arg("momentum"), py::arg("weight_decay"), py::arg("nesterov"),
        "Moves dense NumPy arrays of parameters by one step of SGD.");
  m.def("adam_step", &step_by<Adam, double, double, double, double, double, bool, int64_t>,
        py::arg("names"), py::arg("parameters"), py::arg("gradients"), py::arg("states"),
        py::arg("lr"), py::arg("beta1"), py::arg("beta2"), py::arg("eps"), py::arg("weight_decay"),
        py::arg("decoupled"), py::arg("number"),
        "The same of Adam, or where weight decay is decoupled of AdamW.");
  m.def("rms_prop_step", &step_by<RmsProp, double, double, double, double, double, bool>,
        py::arg("names"), py::arg("parameters"), py::arg("gradients"), py::arg("states"),
        py::arg("lr"), py::arg("alpha"), py::arg("eps"), py::arg("weight_decay"),
        py::arg("momentum"), py::arg("centered"), "The same of RMSprop.");
}

}  // namespace fusedrnn::bindings
