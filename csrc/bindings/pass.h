// The passes of a network over arrays of Python.
//
// States come as one array for each state of a cell: [B,n] where the network is a single run of a
// function's, or "stacked" [R,B,n] over the R runs of layers. Of every step, they are [T,B,n], and
// stacked those of the last row's runs side by side, as y. Where x is [T,I], "unbatched", no array
// of the call has an axis B, and core sees a batch of one sequence.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/array_arguments.h"
#include "bindings/place.h"
#include "core/frozen.h"
#include "core/memory.h"
#include "core/network.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

using NetworkPointer = std::shared_ptr<const Network>;

// Nobody changes it: pybind11 knows no pointers to what is constant.
inline std::shared_ptr<Network> as_python(const NetworkPointer& network) {
  return std::const_pointer_cast<Network>(network);
}

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

// The arrays of a list that core counts: parameters or states. Neither they nor the tensors over
// them move.
template <class Array>
class Arrays {
 public:
  using Tensor = decltype(std::declval<Array&>().tensor());

  explicit Arrays(size_t count) : arrays_(count), tensors_(count, nullptr) {}

  // The arguments of the array's constructor.
  template <class... Arguments>
  void set(size_t i, Arguments&&... arguments) {
    tensors_[i] = arrays_[i].emplace(std::forward<Arguments>(arguments)...).tensor();
  }

  size_t size() const { return arrays_.size(); }
  Array& array(size_t i) { return *arrays_[i]; }
  Tensor const* tensors() const { return tensors_.data(); }

  // Once core has accepted the tensors.
  void make_readable() {
    for (auto& array : arrays_) array->make_readable();
  }

  // Those that were written; None where there is none.
  py::tuple objects() const {
    return tuple_of(arrays_, [](const auto& array) { return array ? array->array() : py::none(); });
  }

 private:
  SmallVector<std::optional<Array>> arrays_;
  std::vector<Tensor> tensors_;
};

std::vector<Name> parameter_names(const Network& network);
Arrays<InputArray> read_parameters(py::handle parameters, const std::vector<Name>& names,
                                   Place* place);

// The states of one run's cell; throws where runs have different ones, which no array can hold.
int states_of_runs(const Network& network);

// What a call draws: None, or a tuple (rate of what is dropped between runs, seed, what step 0
// counts as) of a call in training, which draws the noise of its runs too.
struct Dropout {
  bool training = false;
  double rate = 0;
  uint64_t seed = 0;
  int64_t step = 0;
};
Dropout dropout_argument(py::handle object);

// What a call reads but states: backward reads it again.
struct PassInputs {
  // `parameters`: None where there are no `names`. `masks`: (lengths, mask, resets, whether y shows
  // the state where a step does not exist, the reset states or None), or None.
  PassInputs(py::handle x, py::handle parameters, const std::vector<Name>& names, py::handle masks);

  // Once core has accepted them.
  void make_readable();
  // After the forward pass: backward asks whether there were masks, and reads none but lengths on
  // the host of a call on a CUDA device. Those are kept as they are.
  void release_masks();

  // One comes with every call.
  static void* operator new(size_t bytes) { return allocate_small(bytes); }
  static void operator delete(void* memory, size_t bytes) { release_small(memory, bytes); }

  Place place;  // x decides it
  InputArray x;
  const bool unbatched;
  Arrays<InputArray> parameters;
  const DLTensor *lengths, *mask, *resets;
  std::optional<InputArray> masks[3];
  Dropout dropout;
  bool shows_padding = false;
  py::object reset_states;  // a tuple, or None
};

// (y, states, states of every step, Tape or None). `sequences`: None, or a tuple with an array to
// write, or None for a new one, of each state beyond h: wanted of every step. `frozen`: packed
// weights in the place of parameters, or null. `reserve`: where to save, or None for new memory.
py::tuple forward_pass(NetworkPointer network, std::unique_ptr<PassInputs> inputs, bool stacked,
                       py::handle states, bool save, py::handle y, py::handle states_n,
                       py::handle sequences, const fusedrnn_frozen* frozen = nullptr,
                       py::handle reserve = py::none());

}  // namespace fusedrnn::bindings
