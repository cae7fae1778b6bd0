#include "bindings/tape.h"

#include "bindings/arguments.h"
#include "core/cell_info.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {
namespace {

const char* compute_name(const Problem& p) {
  if (p.compute == Compute::bfloat16) return dtype_name(Dtype::bfloat16);
  return p.compute == Compute::tfloat32 ? kTfloat32 : dtype_name(p.dtype);
}

}  // namespace

void register_tape(py::module_& m) {
  py::class_<Tape>(
      m, "Tape", py::is_final(),
      "What one forward call left for backward; immutable. Keeps x, w_ih and w_hh alive.")
      .def_property_readonly(
          "cell", [](const Tape& tape) { return find_cell(tape.handle->call.problem.cell)->name; },
          "Name of the cell.")
      .def_property_readonly(
          "reverse", [](const Tape& tape) { return tape.handle->call.problem.reverse; },
          "Whether the layer ran from the last step to the first.")
      .def_property_readonly(
          "shape",
          [](const Tape& tape) {
            const Problem& p = tape.handle->call.problem;
            return py::make_tuple(p.T, p.B, p.I, p.H);
          },
          "(T, B, I, H).")
      .def_property_readonly(
          "dtype", [](const Tape& tape) { return dtype_name(tape.handle->call.problem.dtype); },
          "Name of the element type of x and of all else.")
      .def_property_readonly(
          "compute_dtype", [](const Tape& tape) { return compute_name(tape.handle->call.problem); },
          "Name of the type that the products' operands are rounded to.");
}

}  // namespace fusedrnn::bindings
