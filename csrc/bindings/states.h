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

// How messages speak of states: "h0" of a function's, "state[0]" of a stack's.
struct StateNames {
  const char* prefix;       // "", "d", "reset_" or "dreset_"
  const char* time;         // "0" or "_n", or ""
  const char* word;         // "state" or "out[1]"
  const char* word_prefix;  // "" or "d"

  Name of(const Network& network, bool stacked, int state, int first, int count) const {
    const char* letter = network.runs.front().state(state).name;
    if (!stacked) return {prefix, letter, time, -1};
    static constexpr const char* kNumbers[kMaxStates] = {"[0]", "[1]", "[2]", "[3]"};
    return {word_prefix, word, count == 1 ? "" : kNumbers[state - first], -1};
  }
};

// How the arrays of a call lie.
struct Form {
  const Network& network;
  bool stacked, unbatched;
  int64_t T = 0, B = 0;  // of sequences and of arrays that are new

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
  // `wanted`: which of those that are written are made where none is given; null: all.
  States(const Form& form, Each each, const StateNames& names, py::handle tuple, Place* place,
         const std::vector<bool>* wanted = nullptr)
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
      const Name name =
          names.of(network_, form.stacked, s, first_, static_cast<int>(arrays_.size()));
      if constexpr (std::is_same_v<Array, InputArray>) {
        arrays_.set(i, name, objects[i], ElementKind::floating, place);
      } else {
        if (objects[i].is_none() && wanted != nullptr && !(*wanted)[i]) continue;
        arrays_.set(i, name, objects[i], network_.dtype, shape_of(form, s, form.B), place);
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
  Shape shape_of(const Form& form, int s, int64_t B) const {
    const int64_t n = network_.runs.front().state_size(s);
    if (each_ == Each::step) return form.sequence(form.stacked ? n * count_writing_y(network_) : n);
    Shape shape{};
    if (form.stacked) shape.add(static_cast<int64_t>(network_.runs.size()));
    if (each_ == Each::sequence && !form.unbatched) shape.add(B);
    shape.add(n);
    return shape;
  }

  // What must hold before it is cut; of the parts core checks the rest.
  void check(const Form& form, const Name& name, int s, Array& array) const {
    const bool lacks_batch = form.unbatched && each_ != Each::run;
    if (!cuts_ && !lacks_batch) return;
    const Shape shape = shape_of(form, s, kAnyExtent);
    if (lacks_batch) return add_batch(array, name, shape, cuts_ ? 1 : 0);
    const DLTensor& t = *array.tensor();
    check_header(name, t);
    const bool cuts_well = t.ndim == shape.rank() && t.shape[0] == shape.begin()[0];
    if (each_ == Each::step || !cuts_well) check_shape(name, t, shape);
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
