// The maps of all cells for one instruction set and FUSEDRNN_MAPS_REAL, named FUSEDRNN_MAPS, and
// what works through rows, FUSEDRNN_ROWS.
// cmake/cpu_units.cmake compiles it for float, double, and dual numbers of them.
#include FUSEDRNN_ISA_HEADER

#include "cells/registry.h"
#include "cpu/kernels/activations.h"
#include "cpu/kernels/backward_map.h"
#include "cpu/kernels/draw.h"
#include "cpu/kernels/dual.h"
#include "cpu/kernels/forward_map.h"
#include "cpu/kernels/norm_rows.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

namespace {

template <class Cell, class Real, int Index = 0>
constexpr void add_stages(CellMaps<Real>& maps) {
  maps.forward[Index] = ForwardStage<Cell, Real, Index>::map;
  maps.backward[Index] = BackwardStage<Cell, Real, Index>::map;
  if constexpr (Index + 1 < cells::kStageCount<Cell>) add_stages<Cell, Real, Index + 1>(maps);
}

template <class Cell, class Real>
consteval CellMaps<Real> maps_of_cell() {
  CellMaps<Real> maps{};
  add_stages<Cell>(maps);
  return maps;
}

}  // namespace

#define FUSEDRNN_CELL_MAPS(name, ...) maps_of_cell<__VA_ARGS__, FUSEDRNN_MAPS_REAL>(),

const CellMaps<FUSEDRNN_MAPS_REAL> FUSEDRNN_MAPS[] = {FUSEDRNN_FOR_EACH_CELL(FUSEDRNN_CELL_MAPS)};

const RowKernels<FUSEDRNN_MAPS_REAL> FUSEDRNN_ROWS = {
    find_norm<FUSEDRNN_MAPS_REAL>,  find_norm_of_sum<FUSEDRNN_MAPS_REAL>,
    normalise<FUSEDRNN_MAPS_REAL>,  through_norm<FUSEDRNN_MAPS_REAL>,
    length<FUSEDRNN_MAPS_REAL>,     length_of_sums,
    begin_mask<FUSEDRNN_MAPS_REAL>, draw_units<FUSEDRNN_MAPS_REAL>,
    draw_own<FUSEDRNN_MAPS_REAL>};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
