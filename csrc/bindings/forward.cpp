#include <pybind11/pybind11.h>

#include <memory>
#include <utility>

#include "bindings/arguments.h"
#include "bindings/array_import.h"
#include "bindings/cuda_memory.h"
#include "bindings/pass_arguments.h"
#include "bindings/place.h"
#include "bindings/register.h"
#include "bindings/released_gil.h"
#include "bindings/tape.h"
#include "core/validate.h"

namespace fusedrnn::bindings {
namespace {

py::tuple forward(py::handle cell_object, py::handle x_object, py::handle w_ih_object,
                  py::handle w_hh_object, py::handle b_ih_object, py::handle b_hh_object,
                  py::handle h0_object, py::handle c0_object, py::handle lengths_object,
                  py::handle resets_object, py::handle reverse, py::handle save_object,
                  py::handle y_object, py::handle h_n_object, py::handle c_n_object,
                  py::handle compute_dtype) {
  const CellInfo& cell = cell_argument(cell_object);
  const bool save = bool_argument("save", save_object);
  Place place;
  PassInputs inputs(x_object, h0_object, c0_object, lengths_object, resets_object, reverse, &place);
  InputArray w_ih("w_ih", w_ih_object, ElementKind::floating, &place);
  InputArray w_hh("w_hh", w_hh_object, ElementKind::floating, &place);
  InputArray b_ih("b_ih", b_ih_object, ElementKind::floating, &place);
  InputArray b_hh("b_hh", b_hh_object, ElementKind::floating, &place);

  fusedrnn_forward_args args{};
  inputs.describe(cell, args);
  args.w_ih = w_ih.tensor();
  args.w_hh = w_hh.tensor();
  args.b_ih = b_ih.tensor();
  args.b_hh = b_hh.tensor();
  const Problem p = check_forward_inputs(args, Layout::any);
  args.compute = compute_argument(compute_dtype, p.dtype, place.on_cuda());
  inputs.make_readable();
  for (InputArray* array : {&w_ih, &w_hh, &b_ih, &b_hh}) array->make_readable();

  PassOutputs outputs(cell, p, y_object, h_n_object, c_n_object, &place);
  outputs.describe(args);
  // What a call leaves on a device refers to it until the tape is gone.
  const std::shared_ptr<CudaMemory> memory = memory_of(place);
  args.allocator = memory ? memory->allocator() : nullptr;
  args.stream = place.stream();

  fusedrnn_tape* tape = nullptr;
  fusedrnn_status status = FUSEDRNN_OK;
  {
    const ReleasedGil no_gil;
    status = fusedrnn_forward(&args, save ? &tape : nullptr);
  }
  throw_on_failure(status, memory.get());
  std::unique_ptr<fusedrnn_tape, FreeTape> handle(tape);
  if (place.on_cuda()) {
    outputs.keep(
        py::make_tuple(inputs.owners(), w_ih.owner(), w_hh.owner(), b_ih.owner(), b_hh.owner()));
  }
  py::object saved = py::none();
  if (save) {
    saved = py::cast(Tape{memory, std::move(handle), inputs.x.owner(), w_ih.owner(), w_hh.owner(),
                          std::move(place)});
  }
  return py::make_tuple(outputs.y.array(), outputs.h_n.array(), outputs.c_n_or_none(), saved);
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
