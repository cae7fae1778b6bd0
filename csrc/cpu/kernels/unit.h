// One instruction set and one type, as a table of kernels for the engine.
#pragma once

#include "cells/registry.h"
#include "cpu/kernels/activations.h"
#include "cpu/kernels/backward.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class Cell, class F>
void run_pack(const ForwardJob& job, int thread) {
  Forward<Cell, F>(job, thread).pack();
}

template <class Cell, class F>
void run_forward(const ForwardJob& job, int thread) {
  Forward<Cell, F>(job, thread).run();
}

template <class Cell, class F>
void run_backward(const BackwardJob& job, int thread) {
  Backward<Cell, F>(job, thread).run();
}

template <class Cell, class F>
constexpr CellKernels kernels_of() {
  CellKernels kernels{};
  CellShape& shape = kernels.shape;
  shape.edge_bytes = sizeof(typename F::Edge);
  shape.real_bytes = sizeof(typename F::Real);
  shape.row_bytes = sizeof(typename F::Row);
  shape.panel_bytes = sizeof(typename F::Panel);
  shape.saved_bytes = sizeof(SavedOf<Cell, F>);
  shape.mixed = F::kMixed;
  shape.staged = F::kStage;
  shape.quantised = F::kQuantised;
  shape.depth = F::Dot::kDepth;
  shape.depth_unit = F::kDepthUnit;
  shape.matrix_rows = F::MatrixUnit::kRows;
  shape.matrix_fewest_rows = F::MatrixUnit::kFewestRows;
  shape.gradient_rows = kGradientRows<F> > kMaxTileRows ? kGradientRows<F> : kMaxTileRows;
  shape.width = F::V::width;
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
  kernels.pack = run_pack<Cell, F>;
  kernels.forward = run_forward<Cell, F>;
  if constexpr (!F::kQuantised) kernels.backward = run_backward<Cell, F>;
  return kernels;
}

template <class Real>
void run_activation(int which, const void* in, void* out, int64_t n) {
  evaluate<Real>(which, static_cast<const Real*>(in), static_cast<Real*>(out), n);
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

// Defines fusedrnn::cpu::<isa>::<name>, declared in cpu/isa/units.h; the arguments after the name
// are those of Format.
#define FUSEDRNN_DEFINE_UNIT(name, ...)                                             \
  namespace fusedrnn::cpu::FUSEDRNN_ISA {                                           \
  namespace {                                                                       \
  using UnitFormat = Format<__VA_ARGS__>;                                           \
  constexpr CellKernels kCells[] = {FUSEDRNN_FOR_EACH_CELL(FUSEDRNN_UNIT_KERNELS)}; \
  }                                                                                 \
  extern const Unit name;                                                           \
  const Unit name = {kCells, run_activation<UnitFormat::Real>};                     \
  }

#define FUSEDRNN_UNIT_KERNELS(id, text, ...) kernels_of<__VA_ARGS__, UnitFormat>(),
