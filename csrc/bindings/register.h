// The parts of the module; each stands in the file of its name.
#pragma once

#include <pybind11/pybind11.h>

namespace fusedrnn::bindings {

void register_errors();
void register_network(pybind11::module_& m);
void register_tape(pybind11::module_& m);
void register_frozen(pybind11::module_& m);
void register_optimizers(pybind11::module_& m);
void register_nn(pybind11::module_& m);
void register_arrays(pybind11::module_& m);
void register_plain_calls(pybind11::module_& m);
void register_xla_handlers(pybind11::module_& m);

}  // namespace fusedrnn::bindings
