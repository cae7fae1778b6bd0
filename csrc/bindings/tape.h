// The Python objects `Network` and `Tape`: a network's calls, and what one of them left for its
// gradients.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "bindings/pass.h"
#include "bindings/reserve.h"
#include "core/frozen.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

// Immutable. Keeps what backward reads again: x, the parameters, the reserve.
struct Tape {
  NetworkPointer network;
  bool stacked;  // how states come: see pass.h
  std::unique_ptr<PassInputs> inputs;
  std::unique_ptr<Reserve> reserve;
};

// (y, states, Tape or None). `frozen`: packed weights in the place of parameters, or null.
py::tuple forward_pass(NetworkPointer network, std::unique_ptr<PassInputs> inputs, bool stacked,
                       py::handle states, bool save, py::handle y, py::handle states_n,
                       const fusedrnn_frozen* frozen = nullptr);

std::vector<Name> parameter_names(const Network& network);

}  // namespace fusedrnn::bindings
