// A cell's table (cells/cell.h) as plain numbers: for the engine, and for the kernels that are
// compiled once a format whatever the cell.
#pragma once

#include <cstdint>

#include "cells/cell.h"
#include "core/problem.h"
#include "cpu/kernels/inline.h"

namespace fusedrnn::cpu {

constexpr int kMaxStages = 4;
constexpr int kMaxGates = 8;
constexpr int kMaxVectorGradients = 24;

// Rows [first * units, (first + gates) * units) of a parameter, and of the bias that is added.
struct ProductTable {
  int weights = -1;  // numbers of parameters; -1: there is none
  int bias = -1;
  int first = 0, gates = 0;
  char units = 'H', depth = 'H';  // what the letters stand for: see extent()
};

struct StageTable {
  cells::Operand operand = cells::Operand::none;
  ProductTable product{};
  char units = 'H';     // the units that its map walks
  int first_delta = 0;  // of the blocks with the gradients of its u
  bool passes = false;  // whether the next stage multiplies what it passes on
  // Whether threads that share the units out meet after it: forward, and in backward.
  bool meets = false, meets_backward = false;
};

struct StateTable {
  char size = 'H';
  int first_stage = 0, last_stage = 0;  // of those that walk its units: the last one sets it
};

// A vector parameter is read by block; block `delta`, summed over all rows, is its gradient.
struct VectorTable {
  int parameter = -1, block = 0, delta = -1;
};

struct CellTable {
  int gates = 0, unit_vectors = 0, saved = 0, deltas = 0;
  int state_count = 0, stage_count = 0, vector_count = 0, vector_gradient_count = 0;
  int h_stage = -1;  // the one that multiplies h
  ProductTable input;
  StageTable stages[kMaxStages];
  StateTable states[kMaxStates];
  int input_delta[kMaxGates] = {};                    // by gate
  VectorTable vector_gradients[kMaxVectorGradients];  // w[k] first, in order; then biases
};

template <class Cell>
consteval ProductTable product_table(const cells::Product& product) {
  ProductTable table{product.weights, product.bias, product.first, product.gates};
  if (product.weights >= 0) {
    table.units = Cell::kParameters[product.weights].rows.letter;
    table.depth = Cell::kParameters[product.weights].columns.letter;
  }
  return table;
}

template <class Cell>
consteval CellTable table_of() {
  using cells::Operand;
  CellTable table;
  table.gates = Cell::kGates;
  table.unit_vectors = Cell::kUnitVectors;
  table.saved = Cell::kSaved;
  table.deltas = Cell::kDeltas;
  table.state_count = cells::kStateCount<Cell>;
  table.stage_count = cells::kStageCount<Cell>;
  table.vector_count = cells::kVectorCount<Cell>;
  table.input = product_table<Cell>(Cell::kInput);
  for (int i = 0; i < table.stage_count; ++i) {
    StageTable& stage = table.stages[i];
    stage.operand = Cell::kStages[i].operand;
    if (stage.operand == Operand::none) continue;
    stage.product = product_table<Cell>(Cell::kStages[i].product);
    stage.units = stage.product.units;
    stage.first_delta = Cell::recurrent_delta(stage.product.first);
    if (stage.operand == Operand::h) {
      table.h_stage = i;
    } else {
      table.stages[i - 1].passes = table.stages[i - 1].meets = stage.meets_backward = true;
    }
  }
  if (table.h_stage >= 0) {
    table.stages[table.stage_count - 1].meets = table.stages[0].meets_backward = true;
  }
  for (int s = 0; s < table.state_count; ++s) {
    StateTable& state = table.states[s];
    state = {Cell::kStates[s].size, table.stage_count, 0};
    for (int i = 0; i < table.stage_count; ++i) {
      if (table.stages[i].units != state.size) continue;
      if (i < state.first_stage) state.first_stage = i;
      state.last_stage = i;
    }
  }
  const auto add = [&](int parameter, int block, int delta) {
    table.vector_gradients[table.vector_gradient_count++] = {parameter, block, delta};
  };
  for (int k = 0; k < table.vector_count; ++k) {
    const cells::VectorBlock vector = cells::vector_block<Cell>(k);
    add(vector.parameter, vector.block, Cell::vector_delta(k));
  }
  for (int g = 0; g < table.gates; ++g) {
    table.input_delta[g] = Cell::input_delta(g);
    if (table.input.bias >= 0) add(table.input.bias, table.input.first + g, Cell::input_delta(g));
  }
  for (int i = 0; i < table.stage_count; ++i) {
    const ProductTable& product = table.stages[i].product;
    for (int g = product.first; g < product.first + product.gates && product.bias >= 0; ++g) {
      add(product.bias, g, Cell::recurrent_delta(g));
    }
  }
  return table;
}

// What the engine takes for granted. An array that is too small does not compile above.
template <class Cell>
consteval bool is_supported() {
  using cells::Operand;
  constexpr CellTable table = table_of<Cell>();
  if (table.input.units != 'H' || table.input.depth != 'I') return false;
  int products_of_h = 0;
  for (int i = 0; i < table.stage_count; ++i) {
    const StageTable& stage = table.stages[i];
    if (stage.operand == Operand::h) ++products_of_h;
    if (stage.operand == Operand::h && stage.product.depth != table.states[0].size) return false;
    if (stage.operand == Operand::passed &&
        (i == 0 || stage.product.depth != table.stages[i - 1].units)) {
      return false;
    }
  }
  for (int s = 0; s < table.state_count; ++s) {
    if (table.states[s].first_stage > table.states[s].last_stage) return false;
  }
  // The product of what follows a step reaches h where its walk backward begins.
  return products_of_h <= 1 && table.stages[table.stage_count - 1].units == table.states[0].size;
}

// The number that a letter stands for.
FUSEDRNN_INLINE int64_t extent(const Problem& p, char letter) {
  return letter == 'I' ? p.I : letter == 'P' ? p.P : p.H;
}

}  // namespace fusedrnn::cpu
