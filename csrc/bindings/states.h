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

// The states of all runs, as Python has them and as core wants them: of every sequence, or for all
// sequences together, as reset states are.
template <class Array>
class States {
 public:
  enum Of { sequences, all };

  // New or given arrays to write to, or arrays to read. `wanted`: which of those that are written
  // are made where none is given; null: all.
  States(const Form& form, Of of, const StateNames& names, py::handle tuple, Place* place,
         const std::vector<bool>* wanted = nullptr)
      : network_(form.network),
        stacked_(form.stacked),
        arrays_(static_cast<size_t>(states_of_runs(network_))),
        parts_(network_) {
    const Objects objects("states", tuple, arrays_.size());
    const bool batched = of == sequences && !form.unbatched;
    for (size_t s = 0; s < arrays_.size(); ++s) {
      const int state = static_cast<int>(s);
      const Name name = names.of(network_, stacked_, state, 0, static_cast<int>(arrays_.size()));
      if constexpr (std::is_same_v<Array, InputArray>) {
        arrays_.set(s, name, objects[s], ElementKind::floating, place);
      } else {
        if (objects[s].is_none() && wanted != nullptr && !(*wanted)[s]) continue;
        arrays_.set(s, name, objects[s], network_.dtype, shape_of(state, batched, form.B), place);
      }
      if (arrays_.tensors()[s] == nullptr) continue;
      const Shape shape = shape_of(state, batched, kAnyExtent);
      if (of == sequences && form.unbatched) {
        add_batch(arrays_.array(s), name, shape, stacked_ ? 1 : 0);
      } else if (stacked_) {
        check_header(name, *arrays_.tensors()[s]);
        check_runs(name, *arrays_.tensors()[s], shape);
      }
    }
    cut();
  }

  // Null where there is no array at all.
  typename Arrays<Array>::Tensor const* tensors() const {
    return stacked_ ? parts_.list() : arrays_.tensors();
  }
  py::tuple objects() const { return arrays_.objects(); }
  bool has(size_t s) const { return arrays_.tensors()[s] != nullptr; }

  void make_readable() {
    arrays_.make_readable();
    cut();
  }

 private:
  int64_t num_runs() const { return static_cast<int64_t>(network_.runs.size()); }

  Shape shape_of(int s, bool batched, int64_t B) const {
    Shape shape{};
    if (stacked_) shape.add(num_runs());
    if (batched) shape.add(B);
    shape.add(network_.runs.front().state_size(s));
    return shape;
  }

  // Of a run's part of it core checks the rest.
  void check_runs(const Name& name, const DLTensor& t, const Shape& shape) const {
    if (t.ndim == shape.rank() && t.shape[0] == num_runs()) return;
    check_shape(name, t, shape);
  }

  void cut() {
    for (size_t s = 0; stacked_ && s < arrays_.size(); ++s) {
      if (has(s)) parts_.cut_runs(static_cast<int>(s), *arrays_.tensors()[s]);
    }
  }

  const Network& network_;
  const bool stacked_;
  Arrays<Array> arrays_;
  RunStates parts_;
};

// The states beyond h of every step, of a function's run or of the runs that write a stack's y.
template <class Array>
class StateSequences {
 public:
  // `tuple`: None, or an array or None for each of them.
  StateSequences(const Form& form, const StateNames& names, py::handle tuple, Place* place)
      : arrays_(tuple.is_none() ? 0 : size_t(states_of_runs(form.network) - 1)),
        parts_(form.network) {
    if (tuple.is_none()) return;
    const int count = static_cast<int>(arrays_.size());
    const Objects objects("sequences", tuple, arrays_.size());
    for (int s = 1; s <= count; ++s) {
      const Name name = names.of(form.network, form.stacked, s, 1, count);
      const auto i = static_cast<size_t>(s - 1);
      const int64_t runs = form.stacked ? count_writing_y(form.network) : 1;
      const int64_t width = form.network.runs.front().state_size(s) * runs;
      const Shape shape = form.sequence(width);
      if constexpr (std::is_same_v<Array, InputArray>) {
        arrays_.set(i, name, objects[i], ElementKind::floating, place);
      } else {
        arrays_.set(i, name, objects[i], form.network.dtype, shape, place);
      }
      if (arrays_.tensors()[i] == nullptr) continue;
      check_header(name, *arrays_.tensors()[i]);
      check_shape(name, *arrays_.tensors()[i], shape);
      if (form.unbatched) arrays_.array(i).insert_axis(1);
    }
    cut();
  }

  typename Arrays<Array>::Tensor const* tensors() const { return parts_.list(); }
  py::tuple objects() const { return arrays_.objects(); }

  void make_readable() {
    arrays_.make_readable();
    cut();
  }

 private:
  void cut() {
    for (size_t i = 0; i < arrays_.size(); ++i) {
      const DLTensor* const t = arrays_.tensors()[i];
      if (t != nullptr) parts_.cut_columns(static_cast<int>(i) + 1, *t);
    }
  }

  Arrays<Array> arrays_;
  RunStates parts_;
};

}  // namespace fusedrnn::bindings
