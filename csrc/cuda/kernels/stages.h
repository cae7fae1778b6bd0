// What follows from a cell's table (cells/cell.h) for its kernels. The units of a stage, which its
// map runs over, are the rows of its product's matrix, H of them where it has no product. Gates and
// saved vectors have H, a state has as many as its size.
#pragma once

#include "cells/cell.h"

namespace fusedrnn::cuda {

template <class Cell>
constexpr char units_of_stage(int stage) {
  const cells::Product& product = Cell::kStages[stage].product;
  return product.weights < 0 ? 'H' : Cell::kParameters[product.weights].rows.letter;
}

// The first, or the last, of the stages over these units.
template <class Cell>
constexpr int first_stage_over(char units) {
  int stage = 0;
  while (units_of_stage<Cell>(stage) != units) ++stage;
  return stage;
}
template <class Cell>
constexpr int last_stage_over(char units) {
  int stage = cells::kStageCount<Cell> - 1;
  while (units_of_stage<Cell>(stage) != units) --stage;
  return stage;
}

// Whether the next stage multiplies what this one passes on.
template <class Cell>
constexpr bool passes_on(int stage) {
  return stage + 1 < cells::kStageCount<Cell> &&
         Cell::kStages[stage + 1].operand == cells::Operand::passed;
}

// Whether a stage's map normalises the row that the one before passed on.
template <class Cell>
constexpr bool reads_row(int stage) {
  if constexpr (cells::kNormCount<Cell> > 0) {
    for (const cells::Norm& norm : Cell::kNorms) {
      if (norm.of == cells::Normed::passed && norm.stage == stage) return true;
    }
  }
  return false;
}

// The stage that saves vector s. It lies over gate s of a, which the stage with this gate's product
// is the last to read.
template <class Cell>
constexpr int saving_stage(int s) {
  if constexpr (cells::kNormCount<Cell> > 0) {
    return Cell::saved_stage(s);
  } else {
    for (int stage = 0; stage < cells::kStageCount<Cell>; ++stage) {
      const cells::Product& product = Cell::kStages[stage].product;
      const bool feeds = s >= product.first && s < product.first + product.gates;
      if (feeds && units_of_stage<Cell>(stage) == 'H') return stage;
    }
    return last_stage_over<Cell>('H');
  }
}

// The block of gradients of the first of a stage's gates: those of u of one stage are contiguous.
template <class Cell>
constexpr int first_delta(int stage) {
  const bool over_h = units_of_stage<Cell>(stage) == 'H';
  if (over_h) return Cell::recurrent_delta(Cell::kStages[stage].product.first);
  int delta = 0;
  while (Cell::delta_stage(delta) != stage) ++delta;
  return delta;
}

// Sets, for loops that the compiler unrolls: bit i where i is in it.
template <class Predicate>
constexpr unsigned set_of(int count, const Predicate& is_in) {
  unsigned set = 0;
  for (int i = 0; i < count; ++i) set |= (is_in(i) ? 1u : 0u) << i;
  return set;
}

template <class Cell, int stage>
struct StageSets {
  static constexpr char kUnits = units_of_stage<Cell>(stage);
  static constexpr bool kOverH = kUnits == 'H';

  static constexpr unsigned kStates =
      set_of(cells::kStateCount<Cell>, [](int s) { return Cell::kStates[s].size == kUnits; });
  static constexpr unsigned kDeltas =
      set_of(Cell::kDeltas, [](int d) { return Cell::delta_stage(d) == stage; });
  static constexpr unsigned kNormed = set_of(cells::kNormedBlocks<Cell>, [](int n) {
    if constexpr (cells::kNormCount<Cell> > 0) {
      return Cell::normed_stage(n) == stage;
    } else {
      return n < 0;
    }
  });
  static constexpr unsigned kSaves =
      set_of(Cell::kSaved, [](int s) { return saving_stage<Cell>(s) == stage; });
  static constexpr unsigned kSavedBefore =
      set_of(Cell::kSaved, [](int s) { return kOverH && saving_stage<Cell>(s) < stage; });
  // The gates of a that are still there.
  static constexpr unsigned kGates = set_of(Cell::kGates, [](int g) {
    return kOverH && (g >= Cell::kSaved || saving_stage<Cell>(g) >= stage);
  });
};

}  // namespace fusedrnn::cuda
