// One instruction set and one type, as a table of kernels for the engine.
#pragma once

#include "cells/registry.h"
#include "cpu/kernels/activations.h"
#include "cpu/kernels/backward.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class Cell, class Real>
void run_forward(const ForwardJob& job, int thread) {
  Forward<Cell, Real>(job, thread).run();
}

template <class Cell, class Real>
void run_backward(const BackwardJob& job, int thread) {
  Backward<Cell, Real>(job, thread).run();
}

template <class Cell, class Real>
constexpr CellKernels kernels_of() {
  CellKernels kernels{};
  CellShape& shape = kernels.shape;
  shape.width = Vec<Real>::width;
  shape.unit_vectors = Cell::kUnitVectors;
  shape.gates = Cell::kGates;
  shape.states = Cell::kStates;
  shape.saved = Cell::kSaved;
  shape.phases = Cell::kPhases;
  shape.deltas = Cell::kDeltas;
  shape.stream_panels = tile_panels(1, Cell::kGates * Cell::kUnitVectors);
  for (int phase = 0; phase < Cell::kPhases; ++phase) {
    shape.phase_gates[phase] = Cell::phase_gates(phase);
    const int panels = tile_panels(1, Cell::phase_gates(phase) * Cell::kUnitVectors);
    if (panels > shape.stream_panels) shape.stream_panels = panels;
  }
  shape.recurrent_panel = kRecurrentPanel;
  shape.wide_panel = kWidePanel;
  shape.tile_rows = tile_rows(Cell::phase_gates(0) * Cell::kUnitVectors);
  kernels.forward = run_forward<Cell, Real>;
  kernels.backward = run_backward<Cell, Real>;
  return kernels;
}

template <class Real>
void run_activation(int which, const void* in, void* out, int64_t n) {
  evaluate<Real>(which, static_cast<const Real*>(in), static_cast<Real*>(out), n);
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

// Defines fusedrnn::cpu::<isa>::<name>, declared in cpu/isa/units.h.
#define FUSEDRNN_DEFINE_UNIT(name, Real)                                                       \
  namespace fusedrnn::cpu::FUSEDRNN_ISA {                                                      \
  namespace {                                                                                  \
  using UnitReal = Real;                                                                       \
  constexpr CellKernels kCells[] = {FUSEDRNN_FOR_EACH_CELL(FUSEDRNN_UNIT_KERNELS)};            \
  constexpr fusedrnn_cell kOrder[] = {FUSEDRNN_FOR_EACH_CELL(FUSEDRNN_UNIT_ENUMERATOR)};       \
  constexpr bool in_order() {                                                                  \
    int i = 0;                                                                                 \
    for (fusedrnn_cell cell : kOrder) {                                                        \
      if (cell != i++) return false;                                                           \
    }                                                                                          \
    return true;                                                                               \
  }                                                                                            \
  static_assert(in_order(), "cells/registry.h lists the cells in the order of fusedrnn_cell"); \
  }                                                                                            \
  extern const Unit name;                                                                      \
  const Unit name = {kCells, run_activation<Real>};                                            \
  }

#define FUSEDRNN_UNIT_KERNELS(id, text, ...) kernels_of<__VA_ARGS__, UnitReal>(),
#define FUSEDRNN_UNIT_ENUMERATOR(id, text, ...) id,
