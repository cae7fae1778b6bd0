// The CUDA Array Interface, version 3: how arrays without __dlpack__ show their memory.
#pragma once

#include <pybind11/pybind11.h>

#include "bindings/array_view.h"
#include "bindings/place.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

bool has_cuda_interface(py::handle object);

// Describes the array in `view` and makes the stream of `place`, which it may decide, wait for the
// stream that the array was made on. Returns what keeps the memory alive. `read_only`: as it says.
py::object view_cuda_interface(const Name& name, py::handle object, Place& place, ArrayView& view,
                               bool& read_only);

}  // namespace fusedrnn::bindings
