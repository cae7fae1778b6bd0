#include "bindings/pass_arguments.h"

#include <string>

#include "bindings/arguments.h"
#include "bindings/device_array.h"
#include "core/error.h"

namespace fusedrnn::bindings {

PassInputs::PassInputs(py::handle x_object, py::handle h0_object, py::handle c0_object,
                       py::handle lengths_object, py::handle resets_object,
                       py::handle reverse_object, Place* place)
    : x("x", x_object, ElementKind::floating, place),
      h0("h0", h0_object, ElementKind::floating, place),
      c0("c0", c0_object, ElementKind::floating, place),
      lengths("lengths", lengths_object, ElementKind::integer, place),
      resets("resets", resets_object, ElementKind::boolean, place),
      reverse(bool_argument("reverse", reverse_object)) {}

void PassInputs::describe(const CellInfo& cell, fusedrnn_forward_args& args) const {
  args.size = sizeof args;
  args.cell = cell.cell;
  args.reverse = reverse ? 1 : 0;
  args.x = x.tensor();
  args.h0 = h0.tensor();
  args.c0 = c0.tensor();
  args.lengths = lengths.tensor();
  args.resets = resets.tensor();
}

void PassInputs::make_readable() {
  for (InputArray* array : {&x, &h0, &c0, &lengths, &resets}) array->make_readable();
}

py::tuple PassInputs::owners() const {
  return py::make_tuple(x.owner(), h0.owner(), c0.owner(), lengths.owner(), resets.owner());
}

PassOutputs::PassOutputs(const CellInfo& cell, const Problem& p, py::handle y_object,
                         py::handle h_n_object, py::handle c_n_object, const Place* place)
    : y("y", y_object, p.dtype, {p.T, p.B, p.H}, place),
      h_n("h_n", h_n_object, p.dtype, {p.B, p.H}, place) {
  if (cell.states > 1 || !c_n_object.is_none()) {
    c_n.emplace("c_n", c_n_object, p.dtype, Shape{p.B, p.H}, place);
  }
}

void PassOutputs::describe(fusedrnn_forward_args& args) {
  args.y = y.tensor();
  args.h_n = h_n.tensor();
  args.c_n = c_n ? c_n->tensor() : nullptr;
}

py::object PassOutputs::c_n_or_none() const {
  if (c_n) return c_n->array();
  return py::none();
}

void PassOutputs::keep(const py::tuple& inputs) const {
  keep_inputs(y.array(), inputs);
  keep_inputs(h_n.array(), inputs);
  if (c_n) keep_inputs(c_n->array(), inputs);
}

const CellInfo& cell_argument(py::handle object) {
  const std::string name = str_argument("cell", object);
  const CellInfo* cell = find_cell(name);
  if (cell == nullptr) {
    throw_value_error(expected("cell", "one of " + cell_names(), "'" + name + "'"));
  }
  return *cell;
}

}  // namespace fusedrnn::bindings
