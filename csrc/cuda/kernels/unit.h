// The gate kernels of one format as a table. A unit is FUSEDRNN_DEFINE_CUDA_UNIT in a file of its
// own, so that formats compile side by side.
#pragma once

#include <utility>

#include "cells/registry.h"
#include "cuda/device/launch.h"
#include "cuda/kernels/backward_step.h"
#include "cuda/kernels/forward_step.h"

namespace fusedrnn::cuda {

template <class Cell, class F, int Stage>
void launch_forward(const ForwardStep& step, cudaStream_t stream) {
  device::launch(forward_step<Cell, F, Stage>, shape_of_elements(step.B, step.N, "forward_step"),
                 stream, step);
}

template <class Cell, class F, int Stage>
void launch_backward(const BackwardStep& step, cudaStream_t stream) {
  device::launch(backward_step<Cell, F, Stage>, shape_of_elements(step.B, step.N, "backward_step"),
                 stream, step);
}

// The block of gradients that sums up to the gradient of a block of a vector parameter; `vectors`:
// blocks of those before it that are no biases.
template <class Cell>
consteval int vector_delta(int parameter, int block, int vectors) {
  const auto adds = [&](const cells::Product& product) {
    return product.bias == parameter && block >= product.first &&
           block < product.first + product.gates;
  };
  if (adds(Cell::kInput)) return Cell::input_delta(block);
  for (int stage = 0; stage < cells::kStageCount<Cell>; ++stage) {
    const cells::Product& product = Cell::kStages[stage].product;
    if (adds(product)) return first_delta<Cell>(stage) + block - product.first;
  }
  return Cell::vector_delta(vectors);
}

template <class Cell>
consteval CellTable table_of_cell() {
  constexpr int kStages = cells::kStageCount<Cell>;
  static_assert(kStages <= kMaxStages && Cell::kGates <= kMaxGates && Cell::kDeltas <= kMaxDeltas);
  static_assert(cells::kStateCount<Cell> <= kMaxStates);
  static_assert(cells::length(Cell::kParameters) <= kMaxParameters);
  CellTable table{};
  table.parameters = Cell::kParameters;
  table.states = Cell::kStates;
  table.stages = Cell::kStages;
  table.input = Cell::kInput;
  table.gates = Cell::kGates;
  table.saved = Cell::kSaved;
  table.deltas = Cell::kDeltas;
  for (int stage = 0; stage < kStages; ++stage) {
    table.stage_units[stage] = units_of_stage<Cell>(stage);
    table.first_delta[stage] = first_delta<Cell>(stage);
  }
  for (int gate = 0; gate < Cell::kGates; ++gate) table.input_delta[gate] = Cell::input_delta(gate);
  for (int d = 0; d < Cell::kDeltas; ++d) table.delta_stage[d] = Cell::delta_stage(d);
  int vectors = 0;
  for (int i = 0; i < cells::length(Cell::kParameters); ++i) {
    if (Cell::kParameters[i].columns.letter != 0) continue;
    for (int block = 0; block < Cell::kParameters[i].rows.times; ++block) {
      table.vector_deltas[table.vector_blocks++] = {i, block,
                                                    vector_delta<Cell>(i, block, vectors)};
      if (!cells::is_bias<Cell>(i)) ++vectors;
    }
  }
  return table;
}

template <class Cell, class F>
constexpr CellKernels kernels_of() {
  return []<int... stage>(std::integer_sequence<int, stage...>) {
    return CellKernels{table_of_cell<Cell>(),
                       {launch_forward<Cell, F, stage>...},
                       {launch_backward<Cell, F, stage>...}};
  }(std::make_integer_sequence<int, cells::kStageCount<Cell>>{});
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

#define FUSEDRNN_CUDA_UNIT_KERNELS(text, ...) kernels_of<__VA_ARGS__, UnitFormat>(),
