// A run in numbers: its cell's table with the sizes of the letters, and its kernels.
#pragma once

#include "cuda/kernels/step.h"

namespace fusedrnn::cuda {

struct Run {
  const Problem& problem;
  const Unit& unit;
  const CellKernels& kernels;
  const CellTable& cell;

  explicit Run(const Problem& p)
      : problem(p), unit(unit_of(p)), kernels(unit.cells[p.cell]), cell(kernels.table) {}

  int stages() const { return static_cast<int>(cell.stages.size()); }
  int states() const { return static_cast<int>(cell.states.size()); }

  int64_t size(char letter) const {
    return letter == 'I' ? problem.I : letter == 'P' ? problem.P : problem.H;
  }
  int64_t size(const cells::Extent& extent) const { return extent.times * size(extent.letter); }
  int64_t state_size(int s) const { return size(cell.states[s].size); }
  Dtype state_type(int s) const { return s == 0 ? unit.state : unit.real; }
  int64_t units(int stage) const { return size(cell.stage_units[stage]); }

  // The rows of a product's matrix, and how many numbers they have.
  struct Shape {
    int64_t first_row, rows, depth;
  };
  Shape shape(const cells::Product& product) const {
    const cells::Parameter& matrix = cell.parameters[product.weights];
    const int64_t block = size(matrix.rows.letter);
    return {product.first * block, product.gates * block, size(matrix.columns)};
  }

  // Where a block of gradients begins in a row of all of them.
  int64_t delta_column(int delta) const {
    int64_t column = 0;
    for (int d = 0; d < delta; ++d) column += units(cell.delta_stage[d]);
    return column;
  }
  int64_t delta_columns() const { return delta_column(cell.deltas); }
};

}  // namespace fusedrnn::cuda
