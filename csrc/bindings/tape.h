// The Python object `Tape`.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "core/tape.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

struct FreeTape {
  void operator()(fusedrnn_tape* tape) const { fusedrnn_tape_free(tape); }
};

// The C ABI's tape with the memory of x, w_ih and w_hh that it refers to.
struct Tape {
  std::unique_ptr<fusedrnn_tape, FreeTape> handle;
  py::object x, w_ih, w_hh;
};

void register_tape(py::module_& m);

}  // namespace fusedrnn::bindings
