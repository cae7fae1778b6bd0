// The Python object `Tape`.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "bindings/cuda_memory.h"
#include "bindings/place.h"
#include "core/tape.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

struct FreeTape {
  void operator()(fusedrnn_tape* tape) const { fusedrnn_tape_free(tape); }
};

// The C ABI's tape with the memory of x, w_ih and w_hh that it refers to. The members end in the
// order that they need: the handle before the memory it was given.
struct Tape {
  std::shared_ptr<CudaMemory> memory;  // null on the CPU
  std::unique_ptr<fusedrnn_tape, FreeTape> handle;
  py::object x, w_ih, w_hh;
  Place place;
};

void register_tape(py::module_& m);

}  // namespace fusedrnn::bindings
