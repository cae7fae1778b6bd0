// The Python objects `Frozen` and `FrozenStack`.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "core/frozen.h"
#include "core/frozen_stack.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

// One direction of one layer.
struct Frozen {
  std::shared_ptr<const fusedrnn_frozen> handle;
};

// Whether other Python threads may run during a step of B sequences.
bool releases_gil(const FrozenStack& stack, int64_t B);

// fast_step(x_t, state, out): a step of plain dense NumPy arrays; None, and nothing done, where
// they are not that.
py::object make_fast_step(std::shared_ptr<const FrozenStack> stack);

}  // namespace fusedrnn::bindings
