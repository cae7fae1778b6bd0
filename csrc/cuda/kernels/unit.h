// The gate kernels of one format as a table. A unit is FUSEDRNN_DEFINE_CUDA_UNIT in a file of its
// own, so that formats compile side by side.
#pragma once

#include "cells/registry.h"
#include "cuda/device/launch.h"
#include "cuda/kernels/backward_step.h"
#include "cuda/kernels/forward_step.h"

namespace fusedrnn::cuda {

template <class Cell, class F, int Phase>
void launch_forward(const ForwardStep& step, cudaStream_t stream) {
  device::launch(forward_step<Cell, F, Phase>, shape_of_elements(step.B, step.H, "forward_step"),
                 stream, step);
}

template <class Cell, class F, int Phase>
void launch_backward(const BackwardStep& step, cudaStream_t stream) {
  device::launch(backward_step<Cell, F, Phase>, shape_of_elements(step.B, step.H, "backward_step"),
                 stream, step);
}

template <class Cell>
constexpr CellShape shape_of_cell() {
  CellShape shape{};
  shape.gates = Cell::kGates;
  shape.states = Cell::kStates;
  shape.saved = Cell::kSaved;
  shape.phases = Cell::kPhases;
  shape.deltas = Cell::kDeltas;
  for (int phase = 0; phase < Cell::kPhases; ++phase) {
    shape.phase_first[phase] = Cell::phase_first(phase);
    shape.phase_gates[phase] = Cell::phase_gates(phase);
  }
  for (int gate = 0; gate < Cell::kGates; ++gate) {
    shape.input_delta[gate] = Cell::input_delta(gate);
    shape.recurrent_delta[gate] = Cell::recurrent_delta(gate);
  }
  return shape;
}

template <class Cell, class F>
constexpr CellKernels kernels_of() {
  CellKernels kernels{};
  kernels.shape = shape_of_cell<Cell>();
  kernels.forward[0] = launch_forward<Cell, F, 0>;
  kernels.backward[0] = launch_backward<Cell, F, 0>;
  if constexpr (Cell::kPhases > 1) {
    kernels.forward[1] = launch_forward<Cell, F, 1>;
    kernels.backward[1] = launch_backward<Cell, F, 1>;
  }
  return kernels;
}

template <class F>
constexpr Unit unit_with(const CellKernels* cells) {
  return {kDtypeOf<typename F::Edge>,
          kDtypeOf<typename F::Row>,
          kDtypeOf<typename F::Delta>,
          kDtypeOf<typename F::Real>,
          kDtypeOf<typename F::State>,
          F::kMixed,
          cells};
}

}  // namespace fusedrnn::cuda

// Defines fusedrnn::cuda::<name>, declared in step.h; the arguments after the name are Format's.
#define FUSEDRNN_DEFINE_CUDA_UNIT(name, ...)                                             \
  namespace fusedrnn::cuda {                                                             \
  namespace {                                                                            \
  using UnitFormat = Format<__VA_ARGS__>;                                                \
  constexpr CellKernels kCells[] = {FUSEDRNN_FOR_EACH_CELL(FUSEDRNN_CUDA_UNIT_KERNELS)}; \
  }                                                                                      \
  const Unit name = unit_with<UnitFormat>(kCells);                                       \
  }

#define FUSEDRNN_CUDA_UNIT_KERNELS(id, text, ...) kernels_of<__VA_ARGS__, UnitFormat>(),
