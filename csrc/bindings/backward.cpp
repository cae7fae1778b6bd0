#include <pybind11/pybind11.h>

#include <optional>

#include "bindings/arguments.h"
#include "bindings/array_export.h"
#include "bindings/array_import.h"
#include "bindings/cuda_memory.h"
#include "bindings/device_array.h"
#include "bindings/register.h"
#include "bindings/released_gil.h"
#include "bindings/tape.h"
#include "core/cell_info.h"
#include "core/error.h"
#include "core/validate.h"

namespace fusedrnn::bindings {
namespace {

const Tape& tape_argument(py::handle object) {
  if (!py::isinstance<Tape>(object)) {
    throw_type_error(expected("tape", "a Tape", type_name(object)));
  }
  return *py::cast<Tape*>(object);
}

py::dict backward(py::handle tape_object, py::handle dy_object, py::handle dh_n_object,
                  py::handle dc_n_object, py::handle dx_object, py::handle accumulate_dx,
                  py::handle dh0_object, py::handle dc0_object) {
  const Tape& tape = tape_argument(tape_object);
  const Problem& p = tape.handle->call.problem;
  const CellInfo& cell = *find_cell(p.cell);
  Place place = tape.place.now();
  InputArray dy("dy", dy_object, ElementKind::floating, &place);
  InputArray dh_n("dh_n", dh_n_object, ElementKind::floating, &place);
  InputArray dc_n("dc_n", dc_n_object, ElementKind::floating, &place);

  std::optional<OutputArray> dx;
  if (!dx_object.is_none()) {
    dx.emplace("dx", dx_object, p.dtype, Shape{p.T, p.B, p.I}, &place);
  }

  fusedrnn_backward_args args{};
  args.size = sizeof args;
  args.tape = tape.handle.get();
  args.dy = dy.tensor();
  args.dh_n = dh_n.tensor();
  args.dc_n = dc_n.tensor();
  args.dx = dx ? dx->tensor() : nullptr;
  args.accumulate_dx = bool_argument("accumulate_dx", accumulate_dx) ? 1 : 0;
  check_backward_inputs(args, *tape.handle, Layout::any);
  for (InputArray* array : {&dy, &dh_n, &dc_n}) array->make_readable();

  const int64_t rows = cell.gates * p.H;
  if (!dx) dx.emplace("dx", dx_object, p.dtype, Shape{p.T, p.B, p.I}, &place);
  OutputArray dw_ih("dw_ih", py::none(), p.dtype, {rows, p.I}, &place);
  OutputArray dw_hh("dw_hh", py::none(), p.dtype, {rows, p.H}, &place);
  OutputArray db_ih("db_ih", py::none(), p.dtype, {rows}, &place);
  OutputArray db_hh("db_hh", py::none(), p.dtype, {rows}, &place);
  OutputArray dh0("dh0", dh0_object, p.dtype, {p.B, p.H}, &place);
  std::optional<OutputArray> dc0;
  if (cell.states > 1 || !dc0_object.is_none()) {
    dc0.emplace("dc0", dc0_object, p.dtype, Shape{p.B, p.H}, &place);
  }
  args.dx = dx->tensor();
  args.dw_ih = dw_ih.tensor();
  args.dw_hh = dw_hh.tensor();
  args.db_ih = db_ih.tensor();
  args.db_hh = db_hh.tensor();
  args.dh0 = dh0.tensor();
  args.dc0 = dc0 ? dc0->tensor() : nullptr;

  args.stream = place.stream();

  fusedrnn_status status = FUSEDRNN_OK;
  {
    const ReleasedGil no_gil;
    status = fusedrnn_backward(&args);
  }
  throw_on_failure(status, tape.memory.get());
  py::dict gradients;
  gradients["dx"] = dx->array();
  gradients["dw_ih"] = dw_ih.array();
  gradients["dw_hh"] = dw_hh.array();
  gradients["db_ih"] = db_ih.array();
  gradients["db_hh"] = db_hh.array();
  gradients["dh0"] = dh0.array();
  if (dc0) gradients["dc0"] = dc0->array();
  if (place.on_cuda()) {
    const py::tuple read = py::make_tuple(tape_object, dy.owner(), dh_n.owner(), dc_n.owner());
    for (const auto& [name, gradient] : gradients) {
      keep_inputs(py::reinterpret_borrow<py::object>(gradient), read);
    }
  }
  return gradients;
}

}  // namespace

void register_backward(py::module_& m) {
  m.def("backward", &backward, py::arg("tape"), py::arg("dy"), py::arg("dh_n"), py::arg("dc_n"),
        py::arg("dx") = py::none(), py::arg("accumulate_dx") = false, py::arg("dh0") = py::none(),
        py::arg("dc0") = py::none(),
        "Gradients of the call that left the tape, by name: dx, dw_ih, dw_hh, db_ih, db_hh, dh0, "
        "and dc0 for cells that have it.");
}

}  // namespace fusedrnn::bindings
