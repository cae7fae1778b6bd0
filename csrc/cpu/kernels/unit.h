// One instruction set and one type, as a table of kernels for the engine.
#pragma once

#include "cells/registry.h"
#include "cpu/kernels/backward.h"
#include "cpu/kernels/dropout.h"
#include "cpu/kernels/dual.h"
#include "cpu/kernels/forward.h"
#include "cpu/kernels/gates.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class F>
void run_pack(const ForwardJob& job, int thread) {
  pack_cell<F>(job, Share(job.grid, thread));
}

// Whether run_product knows the products of a cell.
constexpr bool has_products(const CellShape& shape) {
  for (int i = 0; i < shape.stage_count; ++i) {
    if (!has_product(stage_vectors(shape, shape.stages[i]))) return false;
  }
  return has_product(shape.gates * shape.unit_vectors);
}

template <class Cell, class F>
consteval KernelShape kernel_shape_of() {
  static_assert(is_supported<Cell>() && has_products(shape_of<Cell>()));
  KernelShape shape{};
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
  shape.copied_units = kCopiedUnits<F>;
  shape.width = F::V::width;
  constexpr int kProjection = Cell::kGates * Cell::kUnitVectors;
  shape.stream_panels = tile_panels<F>(1, kProjection);
  shape.tile_rows = tile_rows<F>(kProjection);
  for (int i = shape.stage_count - 1; i >= 0; --i) {
    if (shape.stages[i].operand == cells::Operand::none) continue;
    const int vectors = stage_vectors(shape, shape.stages[i]);
    const int panels = tile_panels<F>(1, vectors);
    if (panels > shape.stream_panels) shape.stream_panels = panels;
    shape.tile_rows = tile_rows<F>(vectors);
  }
  shape.recurrent_panel = kRecurrentPanel;
  shape.wide_panel = kWidePanel;
  return shape;
}

// Inference alone where weights are quantised.
template <class F>
constexpr auto backward_of() -> void (*)(const BackwardJob&, int) {
  if constexpr (F::kQuantised) {
    return nullptr;
  } else {
    return run_backward<F>;
  }
}

#define FUSEDRNN_UNIT_CELL(name, ...) kernel_shape_of<__VA_ARGS__, F>(),

template <class F>
constexpr KernelShape kCells[] = {FUSEDRNN_FOR_EACH_CELL(FUSEDRNN_UNIT_CELL)};

template <class F>
consteval Unit unit_of() {
  return {kCells<F>, run_pack<F>, run_forward<F>, backward_of<F>(), run_gates<F>, run_drop<F>};
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

// Defines fusedrnn::cpu::<isa>::<name>; the arguments after the name are those of Format.
#define FUSEDRNN_DEFINE_UNIT(name, ...)             \
  namespace fusedrnn::cpu::FUSEDRNN_ISA {           \
  extern const Unit name;                           \
  const Unit name = unit_of<Format<__VA_ARGS__>>(); \
  }
