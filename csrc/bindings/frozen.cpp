// freeze and Frozen: weights packed once, and passes over sequences with them.
#include "bindings/frozen.h"

#include <string>

#include "bindings/arguments.h"
#include "bindings/array_import.h"
#include "bindings/errors.h"
#include "bindings/pass_arguments.h"
#include "bindings/register.h"
#include "bindings/released_gil.h"
#include "core/cell_info.h"
#include "core/error.h"
#include "core/tensor_checks.h"
#include "core/validate.h"

namespace fusedrnn::bindings {
namespace {

fusedrnn_compute frozen_compute_argument(py::handle object) {
  const std::string name = str_argument("compute", object);
  if (name == "same") return FUSEDRNN_COMPUTE_SAME;
  if (name == "bfloat16") return FUSEDRNN_COMPUTE_BFLOAT16;
  if (name == "int8") return FUSEDRNN_COMPUTE_INT8;
  throw_value_error(expected("compute", "one of same, bfloat16, int8", "'" + name + "'"));
}

Frozen freeze(py::handle cell, py::handle w_ih_object, py::handle w_hh_object,
              py::handle b_ih_object, py::handle b_hh_object, py::handle compute) {
  InputArray w_ih("w_ih", w_ih_object, ElementKind::floating);
  InputArray w_hh("w_hh", w_hh_object, ElementKind::floating);
  InputArray b_ih("b_ih", b_ih_object, ElementKind::floating);
  InputArray b_hh("b_hh", b_hh_object, ElementKind::floating);

  fusedrnn_freeze_args args{};
  args.size = sizeof args;
  args.cell = cell_argument(cell).cell;
  args.compute = frozen_compute_argument(compute);
  args.w_ih = w_ih.tensor();
  args.w_hh = w_hh.tensor();
  args.b_ih = b_ih.tensor();
  args.b_hh = b_hh.tensor();
  check_freeze(args, Layout::any);
  for (InputArray* array : {&w_ih, &w_hh, &b_ih, &b_hh}) array->make_readable();

  fusedrnn_frozen* frozen = nullptr;
  fusedrnn_status status = FUSEDRNN_OK;
  {
    const ReleasedGil no_gil;
    status = fusedrnn_freeze(&args, &frozen);
  }
  throw_on_failure(status);
  return {std::shared_ptr<const fusedrnn_frozen>(frozen, fusedrnn_frozen_free)};
}

py::tuple forward(const Frozen& frozen, py::handle x, py::handle h0, py::handle c0,
                  py::handle lengths, py::handle resets, py::handle reverse, py::handle y,
                  py::handle h_n, py::handle c_n) {
  const Problem& problem = frozen.handle->problem;
  const CellInfo& cell = *find_cell(problem.cell);
  PassInputs inputs(x, h0, c0, lengths, resets, reverse);
  fusedrnn_forward_args args{};
  inputs.describe(cell, args);
  const Problem p = check_forward_inputs(args, problem, Layout::any);
  inputs.make_readable();
  PassOutputs outputs(cell, p, y, h_n, c_n);
  outputs.describe(args);

  fusedrnn_status status = FUSEDRNN_OK;
  {
    const ReleasedGil no_gil;
    status = fusedrnn_frozen_forward(frozen.handle.get(), &args);
  }
  throw_on_failure(status);
  return py::make_tuple(outputs.y.array(), outputs.h_n.array(), outputs.c_n_or_none());
}

}  // namespace

void register_frozen(py::module_& m) {
  py::class_<Frozen>(m, "Frozen", py::is_final(),
                     "Packed weights of one layer in one direction; immutable.")
      .def("forward", &forward, py::arg("x"), py::arg("h0"), py::arg("c0"), py::arg("lengths"),
           py::arg("resets"), py::arg("reverse"), py::arg("y") = py::none(),
           py::arg("h_n") = py::none(), py::arg("c_n") = py::none(),
           "Runs over a sequence: (y, h_n, c_n or None).");
  m.def("freeze", &freeze, py::arg("cell"), py::arg("w_ih"), py::arg("w_hh"), py::arg("b_ih"),
        py::arg("b_hh"), py::arg("compute"), "Packs weights for inference.");
}

}  // namespace fusedrnn::bindings
