// What the calls of a network read and write, as arrays: in the order in which core counts them.
//
// States come as one array for each state of a cell: [B,n] where the network is a single run of a
// function's, or [R,B,n] over the R runs of a stack.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <optional>
#include <vector>

#include "bindings/array_arguments.h"
#include "bindings/place.h"
#include "core/network.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

// Arrays that stay where they are: they refer to themselves.
template <class Array>
using Arrays = std::vector<std::optional<Array>>;

using NetworkPointer = std::shared_ptr<const Network>;

// A tuple of `count` objects, which whoever called keeps; None stands for as many of None.
class Objects {
 public:
  Objects(const char* name, py::handle tuple, size_t count);

  py::handle operator[](size_t i) const {
    return tuple_.is_none() ? tuple_ : py::handle(PyTuple_GET_ITEM(tuple_.ptr(), i));
  }

 private:
  py::handle tuple_;
};

// What backward reads again.
class PassInputs {
 public:
  // `names`: of parameters; None where there are none.
  PassInputs(py::handle x, py::handle parameters, const std::vector<Name>& names,
             py::handle lengths, py::handle resets);

  const DLTensor* x() const { return x_->tensor(); }
  const DLTensor* lengths() const { return lengths_ ? lengths_->tensor() : lengths_given_; }
  const DLTensor* resets() const { return resets_ ? resets_->tensor() : resets_given_; }
  const DLTensor* const* parameters() const { return tensors_.data(); }
  const Place& place() const { return place_; }

  // Once core has accepted them.
  void make_readable();

  // After the forward pass: backward asks whether there were masks, and reads none.
  void release_masks();

  // What holds their memory.
  py::tuple owners() const;

 private:
  template <class Visit>
  void for_each(const Visit& visit);
  void refresh();

  Place place_;  // x decides it
  std::optional<InputArray> x_, lengths_, resets_;
  const DLTensor *lengths_given_ = nullptr, *resets_given_ = nullptr;
  Arrays<InputArray> parameters_;
  std::vector<const DLTensor*> tensors_;
};

// How messages speak of states: "h0" of a function's, "state[0]" of a stack's.
struct StateNames {
  const char* prefix;   // "" or "d"
  const char* time;     // "0" or "_n"
  const char* stacked;  // "state", "out[1]"
};

// The states of all runs as core wants them, cut out of arrays.
class StateSlices {
 public:
  explicit StateSlices(const Network& network) : network_(network) {}

  // Name of state `s`, of every run's cell alike.
  static Name name_of(const Network& network, bool stacked, const StateNames& names, int s);

  // `t` may be null, and stays where it is. Throws where it is no array of R runs.
  void set(bool stacked, const Name& name, int s, const DLTensor* t);
  DLTensor* const* list() { return list_.data(); }
  const DLTensor* const* list() const { return list_.data(); }

 private:
  struct Slice {
    DLTensor tensor;
    int64_t shape[2], strides[2];
  };
  const Network& network_;
  std::vector<Slice> slices_;  // of stacked arrays
  std::vector<DLTensor*> list_ =
      std::vector<DLTensor*>(static_cast<size_t>(network_.num_states), nullptr);
};

class StateInputs {
 public:
  StateInputs(const Network& network, bool stacked, const StateNames& names, py::handle arrays,
              Place* place);

  const DLTensor* const* list() { return slices_.list(); }
  void make_readable();
  py::tuple owners() const;

 private:
  void cut();

  const bool stacked_;
  const int count_;
  Arrays<InputArray> arrays_;
  StateSlices slices_;
};

class StateOutputs {
 public:
  StateOutputs(const Network& network, bool stacked, const StateNames& names, int64_t B,
               py::handle arrays, const Place* place);

  DLTensor* const* list() { return slices_.list(); }
  py::tuple arrays() const;

 private:
  Arrays<OutputArray> arrays_;
  StateSlices slices_;
};

// The states of one run's cell; throws where runs have different ones, which no array can hold.
int states_of_runs(const Network& network);

// Results of a call whose library does not know of the work that reads its inputs: see keep_inputs.
void keep_inputs(const py::tuple& results, const py::tuple& inputs);

}  // namespace fusedrnn::bindings
