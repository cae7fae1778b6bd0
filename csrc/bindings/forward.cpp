#include <pybind11/pybind11.h>

#include <optional>
#include <string>

#include "bindings/arguments.h"
#include "bindings/array_export.h"
#include "bindings/array_import.h"
#include "bindings/errors.h"
#include "bindings/register.h"
#include "bindings/released_gil.h"
#include "bindings/tape.h"
#include "core/cell_info.h"
#include "core/error.h"
#include "core/validate.h"

namespace fusedrnn::bindings {
namespace {

const CellInfo& cell_argument(py::handle object) {
  const std::string name = str_argument("cell", object);
  const CellInfo* cell = find_cell(name);
  if (cell == nullptr) {
    throw_value_error(expected("cell", "one of " + cell_names(), "'" + name + "'"));
  }
  return *cell;
}

py::tuple forward(py::handle cell_object, py::handle x_object, py::handle w_ih_object,
                  py::handle w_hh_object, py::handle b_ih_object, py::handle b_hh_object,
                  py::handle h0_object, py::handle c0_object, py::handle lengths_object,
                  py::handle resets_object, py::handle reverse, py::handle save_object,
                  py::handle y_object, py::handle h_n_object, py::handle c_n_object,
                  py::handle compute_dtype) {
  const CellInfo& cell = cell_argument(cell_object);
  const bool save = bool_argument("save", save_object);
  InputArray x("x", x_object, ElementKind::floating);
  InputArray w_ih("w_ih", w_ih_object, ElementKind::floating);
  InputArray w_hh("w_hh", w_hh_object, ElementKind::floating);
  InputArray b_ih("b_ih", b_ih_object, ElementKind::floating);
  InputArray b_hh("b_hh", b_hh_object, ElementKind::floating);
  InputArray h0("h0", h0_object, ElementKind::floating);
  InputArray c0("c0", c0_object, ElementKind::floating);
  InputArray lengths("lengths", lengths_object, ElementKind::integer);
  InputArray resets("resets", resets_object, ElementKind::boolean);

  fusedrnn_forward_args args{};
  args.size = sizeof args;
  args.cell = cell.cell;
  args.reverse = bool_argument("reverse", reverse) ? 1 : 0;
  args.x = x.tensor();
  args.w_ih = w_ih.tensor();
  args.w_hh = w_hh.tensor();
  args.b_ih = b_ih.tensor();
  args.b_hh = b_hh.tensor();
  args.h0 = h0.tensor();
  args.c0 = c0.tensor();
  args.lengths = lengths.tensor();
  args.resets = resets.tensor();
  const Problem p = check_forward_inputs(args, Layout::any);
  args.compute = compute_argument(compute_dtype, p.dtype);
  for (InputArray* array : {&x, &w_ih, &w_hh, &b_ih, &b_hh, &h0, &c0, &lengths, &resets}) {
    array->make_readable();
  }

  OutputArray y("y", y_object, p.dtype, {p.T, p.B, p.H});
  OutputArray h_n("h_n", h_n_object, p.dtype, {p.B, p.H});
  std::optional<OutputArray> c_n;
  if (cell.states > 1 || !c_n_object.is_none()) {
    c_n.emplace("c_n", c_n_object, p.dtype, Shape{p.B, p.H});
  }
  args.y = y.tensor();
  args.h_n = h_n.tensor();
  args.c_n = c_n ? c_n->tensor() : nullptr;

  fusedrnn_tape* tape = nullptr;
  fusedrnn_status status = FUSEDRNN_OK;
  {
    const ReleasedGil no_gil;
    status = fusedrnn_forward(&args, save ? &tape : nullptr);
  }
  throw_on_failure(status);
  std::unique_ptr<fusedrnn_tape, FreeTape> handle(tape);
  py::object saved = py::none();
  if (save) saved = py::cast(Tape{std::move(handle), x.owner(), w_ih.owner(), w_hh.owner()});
  py::object c_n_result = py::none();
  if (c_n) c_n_result = c_n->array();
  return py::make_tuple(y.array(), h_n.array(), c_n_result, saved);
}

}  // namespace

void register_forward(py::module_& m) {
  m.def("forward", &forward, py::arg("cell"), py::arg("x"), py::arg("w_ih"), py::arg("w_hh"),
        py::arg("b_ih"), py::arg("b_hh"), py::arg("h0"), py::arg("c0"), py::arg("lengths"),
        py::arg("resets"), py::arg("reverse"), py::arg("save"), py::arg("y") = py::none(),
        py::arg("h_n") = py::none(), py::arg("c_n") = py::none(),
        py::arg("compute_dtype") = py::none(),
        "Runs one layer in one direction: (y, h_n, c_n or None, Tape or None).");
}

}  // namespace fusedrnn::bindings
