// A run in numbers: its cell's table with the sizes of the letters, and its kernels.
#pragma once

#include "cuda/kernels/step.h"

namespace fusedrnn::cuda {

struct Run {
  const Problem& problem;
  const Types& types;
  const CellKernels& kernels;
  const CellTable& cell;

  explicit Run(const Problem& p) : Run(p, kernels_of(p)) {}

  int parameters() const { return static_cast<int>(cell.parameters.size()); }
  int states() const { return static_cast<int>(cell.states.size()); }
  int stages() const { return static_cast<int>(cell.stages.size()); }

  int64_t size(char letter) const {
    return letter == 'I' ? problem.I : letter == 'P' ? problem.P : problem.H;
  }
  int64_t state_size(int s) const { return size(cell.states[s].size); }
  Dtype state_type(int s) const { return s == 0 ? types.state : types.real; }
  int64_t units(int stage) const { return size(cell.units_of_stage(stage)); }

  // Whether a stage normalises the row that the one before passed on.
  bool reads_row(int stage) const {
    for (const cells::Norm& norm : cell.norms) {
      if (norm.of == cells::Normed::passed && norm.stage == stage) return true;
    }
    return false;
  }

  bool passes_rows() const {
    for (int stage = 1; stage < stages(); ++stage) {
      if (reads_row(stage)) return true;
    }
    return false;
  }

  bool multiplies_passed(int stage) const {
    return stage < stages() && cell.stages[stage].operand == cells::Operand::passed;
  }

  // Whether a stage multiplies w_hh, as the one that multiplies h does.
  bool multiplies_recurrent(int stage) const {
    for (const cells::Stage& other : cell.stages) {
      if (other.operand == cells::Operand::h) {
        return stage < stages() && cell.stages[stage].product.weights == other.product.weights;
      }
    }
    return false;
  }
  // Whether what w_hh multiplies lies apart from h: in training it may be dropped; without, it is
  // as it is in the reserve.
  bool masks_operand(bool save) const {
    return problem.noise.state != 0 && (save || problem.noise.training);
  }

  bool is_matrix(int parameter) const { return cell.parameters[parameter].columns.letter != 0; }
  // A vector is one row.
  struct MatrixShape {
    int64_t rows, columns;
  };
  MatrixShape parameter_shape(int parameter) const {
    const cells::Parameter& table = cell.parameters[parameter];
    const int64_t rows = table.rows.times * size(table.rows.letter);
    if (!is_matrix(parameter)) return {1, rows};
    return {rows, table.columns.times * size(table.columns.letter) / heads(parameter)};
  }
  // Blocks along a matrix's diagonal.
  int64_t heads(int parameter) const {
    for (const cells::Stage& stage : cell.stages) {
      if (stage.operand == cells::Operand::h && stage.product.weights == parameter) {
        return problem.heads;
      }
    }
    return 1;
  }

  // The rows of a product's matrix, and how many numbers each has. With heads it is computed as one
  // batch of products a gate, of which each takes a head's rows and its own columns of what is
  // multiplied.
  struct ProductShape {
    int64_t first_row, rows, depth;
    int64_t heads, parts;

    int64_t width() const { return heads * depth; }  // of what is multiplied
    int64_t part_rows() const { return rows / parts; }
    int64_t head_rows() const { return rows / parts / heads; }
    int64_t to_next_head(int64_t n) const { return heads == 1 ? 0 : n; }
  };
  ProductShape shape(const cells::Product& product) const {
    const int64_t block = size(cell.parameters[product.weights].rows.letter);
    const int64_t number = heads(product.weights);
    return {product.first * block, product.gates * block, parameter_shape(product.weights).columns,
            number, number == 1 ? 1 : int64_t{product.gates}};
  }

  // The first block of `dnormed` of a norm, and of gradients of what it is of.
  int normed_block(int norm) const {
    int block = 0;
    for (const cells::Norm& before : cell.norms.first(static_cast<size_t>(norm))) {
      block += before.gates + (before.of == cells::Normed::passed ? 1 : 0);
    }
    return block;
  }
  int norm_delta(const cells::Norm& norm) const {
    if (norm.of == cells::Normed::input) return cell.input_delta(norm.first);
    return cell.first_delta(norm.stage) + norm.first - cell.stages[norm.stage].product.first;
  }

  // The block of gradients of a block of a bias; negative where the vector is none.
  int bias_delta(int vector, int block) const {
    const auto adds = [&](const cells::Product& product) {
      return product.bias == vector && block >= product.first &&
             block < product.first + product.gates;
    };
    if (adds(cell.input)) return cell.input_delta(block);
    for (int stage = 0; stage < stages(); ++stage) {
      const cells::Product& product = cell.stages[stage].product;
      if (adds(product)) return cell.first_delta(stage) + block - product.first;
    }
    return -1;
  }

  // Where a block of gradients begins in a row of all of them.
  int64_t delta_column(int delta) const {
    int64_t column = 0;
    for (int d = 0; d < delta; ++d) {
      const int stage = cell.delta_stage(d);  // of gates that norms are of, none
      column += stage < 0 ? problem.H : units(stage);
    }
    return column;
  }
  int64_t delta_columns() const { return delta_column(cell.deltas); }

 private:
  Run(const Problem& p, const Kernels& all)
      : problem(p), types(all.types), kernels(all.cells[p.cell]), cell(kernels.table) {}
};

}  // namespace fusedrnn::cuda
