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
constexpr int kMaxUnitVectors = 2, kMaxSaved = 13;
constexpr int kMaxDeltas = 13;
constexpr int kMaxNorms = 4, kMaxNormGates = 4;
constexpr int kMaxVectorGradients = 24;

// Rows [first * units, (first + gates) * units) of a parameter, and of the bias that is added.
struct ProductShape {
  int weights = -1;  // numbers of parameters; -1: there is none
  int bias = -1;
  int first = 0, gates = 0;
  char units = 'H', depth = 'H';  // what the letters stand for: see extent()
  bool of_heads = false;          // whether its weights are w_hh, which may have heads
};

struct StageShape {
  cells::Operand operand = cells::Operand::none;
  ProductShape product{};
  char units = 'H';         // the units that its map walks
  int first_delta = 0;      // of the blocks with the gradients of its u
  bool passes = false;      // whether the next stage multiplies what it passes on
  bool passes_row = false;  // whether the next stage reads it as it is: of a norm
  bool reads_row = false;
  // Whether threads that share the units out meet after it: forward, and in backward.
  bool meets = false, meets_backward = false;
};

struct StateShape {
  char size = 'H';
  int first_stage = 0, last_stage = 0;  // of those that walk its units: the last one sets it
};

// A block of a vector parameter; block `delta`, summed over all rows, is its gradient; where
// `saved` is not negative, the sum of its products with that saved vector.
struct VectorShape {
  int parameter = -1, block = 0, delta = -1;
  char units = 'H';
  int saved = -1;
};

// A norm of a stage over a row (cells::Norm). Its gradient is that of block `delta` and those
// behind it, or where that is -1 of what the stage before passed on, to which block `block + gates`
// is added.
struct NormShape {
  cells::Normed of = cells::Normed::input;
  int first = 0, gates = 0, stage = 0, saved = 0, delta = 0;
  int block = 0;  // of the gradients of normalised numbers
  double epsilon = 0;
};

struct CellShape {
  int gates = 0, unit_vectors = 0, saved = 0;
  int deltas = 0;  // that are stored
  int state_count = 0, stage_count = 0, vector_count = 0, vector_gradient_count = 0;
  int h_stage = -1;     // the one that multiplies h
  bool reads_h = true;  // whether equations read the h that enters a step beside that product
  ProductShape input;
  StageShape stages[kMaxStages];
  StateShape states[kMaxStates];
  int input_delta[kMaxGates] = {};  // by gate
  // Of a block of gradients: its stage, and the optional parameter that it is for and nothing else,
  // or -1.
  int delta_stage[kMaxDeltas] = {}, delta_only_for[kMaxDeltas] = {};
  VectorShape vector_gradients[kMaxVectorGradients];  // w[k] first, in order; then biases
  int norm_count = 0, normed_blocks = 0;
  int normed_inputs =
      -1;  // the saved vector that is the normalised a of gate 0, where there is one
  NormShape norms[kMaxNorms];
};

template <class Cell>
consteval ProductShape product_shape(const cells::Product& product) {
  ProductShape shape{product.weights, product.bias, product.first, product.gates};
  if (product.weights >= 0) {
    shape.units = Cell::kParameters[product.weights].rows.letter;
    shape.depth = Cell::kParameters[product.weights].columns.letter;
  }
  return shape;
}

// Gates are those of hidden units; of another stage it is the first block that the stage writes.
template <class Cell>
consteval int first_delta(int stage, const ProductShape& product) {
  if (product.units == 'H') return Cell::recurrent_delta(product.first);
  int delta = 0;
  while (Cell::delta_stage(delta) != stage) ++delta;
  return delta;
}

template <class Cell>
consteval CellShape shape_of() {
  using cells::Operand;
  CellShape shape;
  shape.gates = Cell::kGates;
  shape.unit_vectors = Cell::kUnitVectors;
  shape.saved = Cell::kSaved;
  while (shape.deltas < Cell::kDeltas && cells::delta_product<Cell>(shape.deltas).delta < 0) {
    ++shape.deltas;
  }
  shape.state_count = cells::kStateCount<Cell>;
  shape.stage_count = cells::kStageCount<Cell>;
  shape.vector_count = cells::kVectorCount<Cell>;
  if constexpr (requires { Cell::kReadsH; }) shape.reads_h = Cell::kReadsH;
  shape.input = product_shape<Cell>(Cell::kInput);
  for (int i = 0; i < shape.stage_count; ++i) {
    StageShape& stage = shape.stages[i];
    stage.operand = Cell::kStages[i].operand;
    if (stage.operand == Operand::none) continue;
    stage.product = product_shape<Cell>(Cell::kStages[i].product);
    stage.units = stage.product.units;
    stage.first_delta = first_delta<Cell>(i, stage.product);
    if (stage.operand == Operand::h) {
      shape.h_stage = i;
    } else {
      shape.stages[i - 1].passes = shape.stages[i - 1].meets = stage.meets_backward = true;
    }
  }
  for (int i = 0; i < shape.stage_count && shape.h_stage >= 0; ++i) {
    ProductShape& product = shape.stages[i].product;
    product.of_heads = product.weights == shape.stages[shape.h_stage].product.weights;
  }
  if (shape.h_stage >= 0) {
    shape.stages[shape.stage_count - 1].meets = shape.stages[0].meets_backward = true;
  }
  if constexpr (cells::kNormCount<Cell> > 0) {
    for (const cells::Norm& norm : Cell::kNorms) {
      const bool of_row = norm.of == cells::Normed::passed;
      const int delta = of_row                            ? -1
                        : norm.of == cells::Normed::input ? Cell::input_delta(norm.first)
                                                          : Cell::recurrent_delta(norm.first);
      shape.norms[shape.norm_count++] = {norm.of,    norm.first, norm.gates,          norm.stage,
                                         norm.saved, delta,      shape.normed_blocks, norm.epsilon};
      if (norm.of == cells::Normed::input) shape.normed_inputs = norm.saved - norm.first;
      shape.normed_blocks += norm.gates + (of_row ? 1 : 0);
      if (!of_row) continue;
      shape.stages[norm.stage].reads_row = shape.stages[norm.stage - 1].passes_row = true;
    }
  }
  for (int s = 0; s < shape.state_count; ++s) {
    StateShape& state = shape.states[s];
    state = {Cell::kStates[s].size, shape.stage_count, 0};
    for (int i = 0; i < shape.stage_count; ++i) {
      if (shape.stages[i].units != state.size) continue;
      if (i < state.first_stage) state.first_stage = i;
      state.last_stage = i;
    }
  }
  const auto add = [&](int parameter, int block, int delta, char units) {
    shape.vector_gradients[shape.vector_gradient_count++] = {parameter, block, delta, units};
  };
  for (int k = 0; k < shape.vector_count; ++k) {
    const cells::VectorBlock vector = cells::vector_block<Cell>(k);
    const int delta = Cell::vector_delta(k);
    const cells::DeltaProduct product = cells::delta_product<Cell>(delta);
    add(vector.parameter, vector.block, product.delta < 0 ? delta : product.delta, 'H');
    shape.vector_gradients[k].saved = product.saved;
  }
  for (int d = 0; d < shape.deltas; ++d) {
    shape.delta_stage[d] = Cell::delta_stage(d);
    shape.delta_only_for[d] = cells::only_for_optional<Cell>(d);
  }
  for (int g = 0; g < shape.gates; ++g) {
    shape.input_delta[g] = Cell::input_delta(g);
    if (shape.input.bias < 0) continue;
    add(shape.input.bias, shape.input.first + g, Cell::input_delta(g), 'H');
  }
  for (int i = 0; i < shape.stage_count; ++i) {
    const StageShape& stage = shape.stages[i];
    for (int g = 0; g < stage.product.gates && stage.product.bias >= 0; ++g) {
      add(stage.product.bias, stage.product.first + g, stage.first_delta + g, stage.units);
    }
  }
  return shape;
}

// Vectors in a panel of a stage's product; without one, those whose tiles its map walks.
constexpr int stage_vectors(const CellShape& shape, const StageShape& stage) {
  const bool multiplies = stage.operand != cells::Operand::none;
  return (multiplies ? stage.product.gates : 1) * shape.unit_vectors;
}

// What the engine takes for granted. An array that is too small does not compile above.
template <class Cell>
consteval bool is_supported() {
  using cells::Operand;
  constexpr CellShape shape = shape_of<Cell>();
  if (shape.input.units != 'H' || shape.input.depth != 'I') return false;
  // So that panels of units and of recurrent weights, which have two vectors, cover each other.
  if (shape.unit_vectors > kMaxUnitVectors || shape.saved > kMaxSaved) return false;
  if (shape.norm_count > 0 && shape.unit_vectors != 1) return false;
  for (int n = 0; n < shape.norm_count; ++n) {
    const NormShape& norm = shape.norms[n];
    if (norm.gates > kMaxNormGates) return false;
    // Normalised inputs are saved in one place, in the order of gates.
    if (norm.of == cells::Normed::input && norm.saved - norm.first != shape.normed_inputs) {
      return false;
    }
  }
  // Products are of stored blocks with saved vectors that are exact.
  for (int d = shape.deltas; d < Cell::kDeltas; ++d) {
    const int delta = cells::delta_product<Cell>(d).delta;
    if (delta < 0 || delta >= shape.deltas || shape.norm_count == 0) return false;
  }
  int products_of_h = 0;
  for (int i = 0; i < shape.stage_count; ++i) {
    const StageShape& stage = shape.stages[i];
    if (stage.operand == Operand::h) ++products_of_h;
    if (stage.operand == Operand::h && stage.product.depth != shape.states[0].size) return false;
    if (stage.operand == Operand::passed &&
        (i == 0 || stage.product.depth != shape.stages[i - 1].units)) {
      return false;
    }
  }
  for (int s = 0; s < shape.state_count; ++s) {
    if (shape.states[s].first_stage > shape.states[s].last_stage) return false;
  }
  // The product of what follows a step reaches h where its walk backward begins.
  return products_of_h <= 1 && shape.stages[shape.stage_count - 1].units == shape.states[0].size;
}

// The number that a letter stands for.
FUSEDRNN_INLINE int64_t extent(const Problem& p, char letter) {
  return letter == 'I' ? p.I : letter == 'P' ? p.P : p.H;
}
// Blocks along the diagonal of a product's weights, and columns of these.
FUSEDRNN_INLINE int64_t heads_of(const Problem& p, const ProductShape& product) {
  return product.of_heads ? p.heads : 1;
}
FUSEDRNN_INLINE int64_t depth_of(const Problem& p, const ProductShape& product) {
  const int64_t depth = extent(p, product.depth), heads = heads_of(p, product);
  return heads == 1 ? depth : depth / heads;  // small steps notice a division
}

}  // namespace fusedrnn::cpu
