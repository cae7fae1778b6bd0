#include <pybind11/pybind11.h>

#include <exception>

#include "bindings/gil.h"
#include "bindings/register.h"
#include "core/system.h"
#include "fusedrnn/fusedrnn.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled part of fusedrnn: arrays in and out. Its types are those of _core.pyi.";
  m.attr("__version__") = fusedrnn_version();
  try {
    // FUSEDRNN_ISA must be honoured or refused, and refused before anything has been computed.
    fusedrnn::require_usable_isa();
  } catch (const std::exception& error) {
    throw pybind11::import_error(error.what());
  }
  fusedrnn::bindings::watch_for_the_end_of_python();
  fusedrnn::bindings::register_errors();
  fusedrnn::bindings::register_tape(m);
  fusedrnn::bindings::register_network(m);
  fusedrnn::bindings::register_frozen(m);
  fusedrnn::bindings::register_optimizers(m);
  fusedrnn::bindings::register_arrays(m);
  fusedrnn::bindings::register_system(m);
}
