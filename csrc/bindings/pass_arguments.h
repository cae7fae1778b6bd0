// What a pass over a sequence takes beside its weights, and what it returns.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>

#include "bindings/array_export.h"
#include "bindings/array_import.h"
#include "core/cell_info.h"
#include "core/problem.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

struct PassInputs {
  InputArray x, h0, c0, lengths, resets;
  bool reverse;

  // x decides the place. Without one: on the CPU.
  PassInputs(py::handle x, py::handle h0, py::handle c0, py::handle lengths, py::handle resets,
             py::handle reverse, Place* place = nullptr);

  // The inputs' share of `args`, with its size and cell; again after make_readable().
  void describe(const CellInfo& cell, fusedrnn_forward_args& args) const;

  // Once core has accepted them.
  void make_readable();

  // What holds their memory.
  py::tuple owners() const;
};

struct PassOutputs {
  OutputArray y, h_n;
  std::optional<OutputArray> c_n;  // also where the cell has no c but was given an array for it

  PassOutputs(const CellInfo& cell, const Problem& p, py::handle y, py::handle h_n, py::handle c_n,
              const Place* place = nullptr);

  void describe(fusedrnn_forward_args& args);

  py::object c_n_or_none() const;

  // For as long as the results live (see keep_inputs).
  void keep(const py::tuple& inputs) const;
};

const CellInfo& cell_argument(py::handle object);

}  // namespace fusedrnn::bindings
