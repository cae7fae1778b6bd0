#include "bindings/pass.h"

#include <string>

#include "bindings/arguments.h"
#include "core/error.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {

Objects::Objects(const char* name, py::handle tuple, size_t count) : tuple_(tuple) {
  if (tuple.is_none()) return;
  if (!PyTuple_Check(tuple.ptr())) throw_type_error(expected(name, "a tuple", type_name(tuple)));
  const auto size = static_cast<size_t>(PyTuple_GET_SIZE(tuple.ptr()));
  if (size == count) return;
  throw_value_error(expected(name, std::to_string(count) + " values", std::to_string(size)));
}

// --- what backward reads again ---

PassInputs::PassInputs(py::handle x, py::handle parameters, const std::vector<Name>& names,
                       py::handle lengths, py::handle resets) {
  x_.emplace("x", x, ElementKind::floating, &place_);
  const Objects objects("parameters", parameters, names.size());
  parameters_ = Arrays<InputArray>(names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    parameters_[i].emplace(names[i], objects[i], ElementKind::floating, &place_);
  }
  lengths_.emplace("lengths", lengths, ElementKind::integer, &place_);
  resets_.emplace("resets", resets, ElementKind::boolean, &place_);
  refresh();
}

template <class Visit>
void PassInputs::for_each(const Visit& visit) {
  for (InputArray* array : {&*x_, &*lengths_, &*resets_}) visit(*array);
  for (std::optional<InputArray>& array : parameters_) visit(*array);
}

void PassInputs::refresh() {
  tensors_.clear();
  tensors_.reserve(parameters_.size());
  for (const auto& array : parameters_) tensors_.push_back(array->tensor());
}

void PassInputs::make_readable() {
  for_each([](InputArray& array) { array.make_readable(); });
  refresh();
}

void PassInputs::release_masks() {
  static constexpr DLTensor kGiven{};
  lengths_given_ = lengths() == nullptr ? nullptr : &kGiven;
  resets_given_ = resets() == nullptr ? nullptr : &kGiven;
  lengths_.reset();
  resets_.reset();
}

py::tuple PassInputs::owners() const {
  py::list owners;
  for (const InputArray* array : {&*x_, &*lengths_, &*resets_}) owners.append(array->owner());
  for (const auto& array : parameters_) owners.append(array->owner());
  return py::tuple(owners);
}

// --- states ---

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

Name StateSlices::name_of(const Network& network, bool stacked, const StateNames& names, int s) {
  const Run& run = network.runs.front();
  if (!stacked)
    return {names.prefix, run.cell->states[static_cast<size_t>(s)].name, names.time, -1};
  static constexpr const char* kNumbers[kMaxStates] = {"[0]", "[1]", "[2]", "[3]"};
  return {names.prefix, names.stacked, run.num_states() == 1 ? "" : kNumbers[s], -1};
}

void StateSlices::set(bool stacked, const Name& name, int s, const DLTensor* t) {
  if (t != nullptr && stacked) {
    check_header(name, *t);
    const auto runs = static_cast<int64_t>(network_.runs.size());
    if (t->ndim != 3 || t->shape[0] != runs) {
      const int64_t wanted[] = {runs, kAnyExtent, network_.runs.front().state_size(s)};
      throw_value_error(expected(name, "shape " + shape_text(wanted, 3), shape_text(*t)));
    }
  }
  if (!stacked) {
    list_[static_cast<size_t>(s)] = const_cast<DLTensor*>(t);  // to be read, or an output's
    return;
  }
  slices_.resize(list_.size());
  for (size_t r = 0; r < network_.runs.size(); ++r) {
    const auto number = static_cast<size_t>(network_.runs[r].first_state + s);
    list_[number] = nullptr;
    if (t == nullptr) continue;
    Slice& slice = slices_[number];
    slice.tensor = *t;
    list_[number] = &slice.tensor;
    for (int axis = 0; axis < 2; ++axis) {
      slice.shape[axis] = t->shape[axis + 1];
      slice.strides[axis] = stride_of(*t, axis + 1);
    }
    slice.tensor.ndim = 2;
    slice.tensor.shape = slice.shape;
    slice.tensor.strides = slice.strides;
    const int64_t offset = static_cast<int64_t>(r) * stride_of(*t, 0) * item_size(*t);
    if (t->data != nullptr) slice.tensor.data = static_cast<char*>(data_of(*t)) + offset;
    slice.tensor.byte_offset = 0;
  }
}

StateInputs::StateInputs(const Network& network, bool stacked, const StateNames& names,
                         py::handle arrays, Place* place)
    : stacked_(stacked),
      count_(states_of_runs(network)),
      arrays_(static_cast<size_t>(count_)),
      slices_(network) {
  const Objects objects("states", arrays, static_cast<size_t>(count_));
  for (int s = 0; s < count_; ++s) {
    arrays_[static_cast<size_t>(s)].emplace(StateSlices::name_of(network, stacked, names, s),
                                            objects[static_cast<size_t>(s)], ElementKind::floating,
                                            place);
  }
  cut();
}

void StateInputs::cut() {
  for (int s = 0; s < count_; ++s) {
    const InputArray& array = *arrays_[static_cast<size_t>(s)];
    slices_.set(stacked_, array.name(), s, array.tensor());
  }
}

void StateInputs::make_readable() {
  for (auto& array : arrays_) array->make_readable();
  cut();
}

py::tuple StateInputs::owners() const {
  py::list owners;
  for (const auto& array : arrays_) owners.append(array->owner());
  return py::tuple(owners);
}

StateOutputs::StateOutputs(const Network& network, bool stacked, const StateNames& names, int64_t B,
                           py::handle arrays, const Place* place)
    : slices_(network) {
  const int count = states_of_runs(network);
  const Objects objects("states", arrays, static_cast<size_t>(count));
  arrays_ = Arrays<OutputArray>(static_cast<size_t>(count));
  for (int s = 0; s < count; ++s) {
    const Name name = StateSlices::name_of(network, stacked, names, s);
    Shape shape{};
    if (stacked) shape.add(static_cast<int64_t>(network.runs.size()));
    shape.add(B);
    shape.add(network.runs.front().state_size(s));
    std::optional<OutputArray>& array = arrays_[static_cast<size_t>(s)];
    array.emplace(name, objects[static_cast<size_t>(s)], network.dtype, shape, place);
    slices_.set(stacked, name, s, array->tensor());
  }
}

py::tuple StateOutputs::arrays() const {
  py::tuple result(arrays_.size());
  for (size_t s = 0; s < arrays_.size(); ++s) result[s] = arrays_[s]->array();
  return result;
}

void keep_inputs(const py::tuple& results, const py::tuple& inputs) {
  for (const py::handle result : results) {
    if (!result.is_none()) keep_inputs(py::reinterpret_borrow<py::object>(result), inputs);
  }
}

}  // namespace fusedrnn::bindings
