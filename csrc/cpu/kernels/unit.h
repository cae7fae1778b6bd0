// One instruction set and one type, as a table of kernels for the engine.
#pragma once

#include "cells/registry.h"
#include "cpu/kernels/activations.h"
#include "cpu/kernels/backward.h"
#include "cpu/kernels/forward.h"
#include "cpu/kernels/gates.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class F>
void run_pack(const ForwardJob& job, int thread) {
  pack_cell<F>(job, Share(job.grid, job.call->problem.B, thread));
}

// What Stage<Cell, F, i>::map is, for each stage of a cell.
template <class Cell, class F, template <class, class, int> class Stage, class Map>
struct StageMaps {
  Map of[cells::kStageCount<Cell>];

  consteval StageMaps() : of{} { add<0>(); }

 private:
  template <int Index>
  consteval void add() {
    of[Index] = Stage<Cell, F, Index>::map;
    if constexpr (Index + 1 < cells::kStageCount<Cell>) add<Index + 1>();
  }
};

template <class Cell, class F>
void forward_of(const ForwardJob& job, int thread) {
  static constexpr StageMaps<Cell, F, ForwardStage, ForwardMap<F>> kMaps;
  run_forward<F>(job, thread, kMaps.of);
}

template <class Cell, class F>
void backward_of(const BackwardJob& job, int thread) {
  static constexpr StageMaps<Cell, F, BackwardStage, BackwardMap<F>> kMaps;
  run_backward<F>(job, thread, kMaps.of);
}

template <class Cell, class F>
constexpr CellKernels kernels_of() {
  static_assert(is_supported<Cell>() && has_product(Cell::kGates * Cell::kUnitVectors));
  CellKernels kernels{};
  KernelShape& shape = kernels.shape;
  static_cast<CellShape&>(shape) = shape_of<Cell>();
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
  constexpr int kProjection = Cell::kGates * Cell::kUnitVectors;
  shape.stream_panels = tile_panels(1, kProjection);
  shape.tile_rows = tile_rows(kProjection);
  for (int i = shape.stage_count - 1; i >= 0; --i) {
    if (shape.stages[i].operand == cells::Operand::none) continue;
    const int vectors = shape.stages[i].product.gates * Cell::kUnitVectors;
    const int panels = tile_panels(1, vectors);
    if (panels > shape.stream_panels) shape.stream_panels = panels;
    shape.tile_rows = tile_rows(vectors);
  }
  shape.recurrent_panel = kRecurrentPanel;
  shape.wide_panel = kWidePanel;
  kernels.forward = forward_of<Cell, F>;
  if constexpr (!F::kQuantised) kernels.backward = backward_of<Cell, F>;
  return kernels;
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

// Defines fusedrnn::cpu::<isa>::<name>; the arguments after the name are those of Format.
#define FUSEDRNN_DEFINE_UNIT(name, ...)                                             \
  namespace fusedrnn::cpu::FUSEDRNN_ISA {                                           \
  namespace {                                                                       \
  using UnitFormat = Format<__VA_ARGS__>;                                           \
  constexpr CellKernels kCells[] = {FUSEDRNN_FOR_EACH_CELL(FUSEDRNN_UNIT_KERNELS)}; \
  }                                                                                 \
  extern const Unit name;                                                           \
  const Unit name = {kCells, run_pack<UnitFormat>, run_gates<UnitFormat>};          \
  }

#define FUSEDRNN_UNIT_KERNELS(name, ...) kernels_of<__VA_ARGS__, UnitFormat>(),
