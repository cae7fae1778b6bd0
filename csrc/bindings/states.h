// The states of a call, as Python has them and as core wants them.
#pragma once

#include <type_traits>
#include <vector>

#include "bindings/pass.h"
#include "bindings/run_states.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {

// Of a call without an axis B: once `array` has the shape that it should have without one, it gets
// one before axis `axis`.
template <class Array>
void add_batch(Array& array, const Name& name, const Shape& shape, int axis) {
  const DLTensor* t = array.tensor();
  if (t == nullptr) return;
  check_header(name, *t);
  check_shape(name, *t, shape);
  array.insert_axis(axis);
}

// How the arrays of a call lie.
struct Form {
  Form(const Network& its_network, bool is_stacked, const PassInputs& inputs)
      : network(its_network),
        stacked(is_stacked),
        unbatched(inputs.unbatched),
        T(inputs.x.tensor()->shape[0]),
        B(inputs.x.tensor()->shape[1]) {}

  const Network& network;
  const bool stacked, unbatched;
  const int64_t T, B;

  Shape sequence(int64_t width) const { return unbatched ? Shape{T, width} : Shape{T, B, width}; }
};

// What there is a state of.
enum class Each {
  sequence,
  run,   // for all sequences together, as reset states are
  step,  // beyond h, and of the runs that write y alone
};

// The states of all runs, as Python has them and as core wants them.
template <class Array>
class States {
 public:
  // New or given arrays to write to, or arrays to read; of each step none where `tuple` is None.
  // Messages speak of them as "h0", between `prefix` and `suffix`. `wanted`: which of those that
  // are written are made where none is given; null: all.
  States(const Form& form, Each each, const char* prefix, const char* suffix, py::handle tuple,
         Place* place, const std::vector<bool>* wanted = nullptr)
      : network_(form.network),
        each_(each),
        first_(each == Each::step ? 1 : 0),
        cuts_(form.stacked || each == Each::step),
        arrays_(each == Each::step && tuple.is_none()
                    ? 0
                    : static_cast<size_t>(states_of_runs(network_) - first_)),
        parts_(network_) {
    const Objects objects(each == Each::step ? "sequences" : "states", tuple, arrays_.size());
    for (size_t i = 0; i < arrays_.size(); ++i) {
      const int s = first_ + static_cast<int>(i);
      const Name name(prefix, network_.runs.front().state(s).name, suffix, -1);
      if constexpr (std::is_same_v<Array, InputArray>) {
        arrays_.set(i, name, objects[i], ElementKind::floating, place);
      } else {
        if (objects[i].is_none() && wanted != nullptr && !(*wanted)[i]) continue;
        arrays_.set(i, name, objects[i], network_.dtype, shape_of(form, s), place);
      }
      if (arrays_.tensors()[i] != nullptr) check(form, name, s, arrays_.array(i));
    }
    cut();
  }

  // Null where there is no array at all.
  typename Arrays<Array>::Tensor const* tensors() const {
    return cuts_ ? parts_.list() : arrays_.tensors();
  }
  py::tuple objects() const { return arrays_.objects(); }

  void make_readable() {
    arrays_.make_readable();
    cut();
  }

 private:
  Shape shape_of(const Form& form, int s) const {
    const int64_t n = network_.runs.front().state_size(s);
    if (each_ == Each::step) return form.sequence(form.stacked ? n * count_writing_y(network_) : n);
    Shape shape{};
    if (form.stacked) shape.add(static_cast<int64_t>(network_.runs.size()));
    if (each_ == Each::sequence && !form.unbatched) shape.add(form.B);
    shape.add(n);
    return shape;
  }

  // What must hold before it is cut or gets an axis B; all else core checks.
  void check(const Form& form, const Name& name, int s, Array& array) const {
    const bool lacks_batch = form.unbatched && each_ != Each::run;
    if (lacks_batch) return add_batch(array, name, shape_of(form, s), cuts_ ? 1 : 0);
    if (!cuts_) return;
    check_header(name, *array.tensor());
    check_shape(name, *array.tensor(), shape_of(form, s));
  }

  void cut() {
    for (size_t i = 0; cuts_ && i < arrays_.size(); ++i) {
      const DLTensor* const whole = arrays_.tensors()[i];
      const int s = first_ + static_cast<int>(i);
      if (whole == nullptr) continue;
      each_ == Each::step ? parts_.cut_columns(s, *whole) : parts_.cut_runs(s, *whole);
    }
  }

  const Network& network_;
  const Each each_;
  const int first_;  // of the states
  const bool cuts_;  // into the parts of runs
  Arrays<Array> arrays_;
  RunStates parts_;
};

}  // namespace fusedrnn::bindings
