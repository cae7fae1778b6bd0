// What follows from a cell's table (cells/cell.h) for its kernels, in constant expressions alone.
// The units of a stage, which its map runs over, are the rows of its product's matrix, H of them
// where it has no product. Gates and saved vectors have H; a state has as many as its size.
// Sets are bits: bit i where i is in it.
#pragma once

#include "cells/cell.h"

namespace fusedrnn::cuda {

template <class Predicate>
constexpr unsigned set_of(int count, const Predicate& is_in) {
  unsigned set = 0;
  for (int i = 0; i < count; ++i) set |= (is_in(i) ? 1u : 0u) << i;
  return set;
}

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

template <class Cell>
constexpr unsigned states_over(char units) {
  return set_of(cells::kStateCount<Cell>, [=](int s) { return Cell::kStates[s].size == units; });
}

// Saved vectors lie over the gates of a: saved vector s over gate s, which the stage with this
// gate's product is the last to read.
template <class Cell>
constexpr int saving_stage(int saved) {
  for (int stage = 0; stage < cells::kStageCount<Cell>; ++stage) {
    const cells::Product& product = Cell::kStages[stage].product;
    const bool feeds = saved >= product.first && saved < product.first + product.gates;
    if (feeds && units_of_stage<Cell>(stage) == 'H') return stage;
  }
  return last_stage_over<Cell>('H');
}

template <class Cell>
constexpr unsigned saved_by(int stage) {
  return set_of(Cell::kSaved, [=](int s) { return saving_stage<Cell>(s) == stage; });
}
// What a stage over H units can read: what was saved before it, and those gates of a that are still
// there.
template <class Cell>
constexpr unsigned saved_before(int stage) {
  if (units_of_stage<Cell>(stage) != 'H') return 0;
  return set_of(Cell::kSaved, [=](int s) { return saving_stage<Cell>(s) < stage; });
}
template <class Cell>
constexpr unsigned gates_at(int stage) {
  if (units_of_stage<Cell>(stage) != 'H') return 0;
  return set_of(Cell::kGates, [=](int gate) {
    return gate >= Cell::kSaved || saving_stage<Cell>(gate) >= stage;
  });
}

// The block of gradients of the first of a stage's gates.
template <class Cell>
constexpr int first_delta(int stage) {
  if (units_of_stage<Cell>(stage) == 'H') {
    return Cell::recurrent_delta(Cell::kStages[stage].product.first);
  }
  int delta = 0;
  while (Cell::delta_stage(delta) != stage) ++delta;
  return delta;
}

template <class Cell>
constexpr unsigned deltas_of(int stage) {
  return set_of(Cell::kDeltas, [=](int d) { return Cell::delta_stage(d) == stage; });
}

}  // namespace fusedrnn::cuda
