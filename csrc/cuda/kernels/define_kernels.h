// The gate kernels of one format: FUSEDRNN_DEFINE_CUDA_KERNELS in a file of its own, so that
// formats compile side by side.
#pragma once

#include <utility>

#include "cells/registry.h"
#include "cuda/device/launch.h"
#include "cuda/kernels/backward_step.h"
#include "cuda/kernels/forward_step.h"
#include "cuda/kernels/norms.h"

namespace fusedrnn::cuda {

template <class Cell, class F, int Stage>
void launch_forward(const ForwardStep& step, const double* constants, cudaStream_t stream) {
  device::launch(forward_step<Cell, F, Stage>, shape_of_elements(step.B, step.N, "forward_step"),
                 stream, step, cells::constants_of<Cell, typename F::Plain>(constants));
}

template <class Cell, class F, int Stage>
void launch_backward(const BackwardStep& step, const double* constants, cudaStream_t stream) {
  device::launch(backward_step<Cell, F, Stage>, shape_of_elements(step.B, step.N, "backward_step"),
                 stream, step, cells::constants_of<Cell, typename F::Plain>(constants));
}

template <class Cell>
constexpr std::span<const cells::Norm> norms_of_cell() {
  if constexpr (cells::kNormCount<Cell> > 0) {
    static_assert(cells::kNormCount<Cell> <= kMaxNorms);
    return Cell::kNorms;
  } else {
    return {};
  }
}

template <class Cell>
constexpr CellTable table_of_cell() {
  static_assert(cells::length(Cell::kParameters) <= kMaxParameters &&
                cells::kStateCount<Cell> <= kMaxStates && cells::kStageCount<Cell> <= kMaxStages &&
                Cell::kDeltas <= kMaxDeltas);
  return {Cell::kParameters,     Cell::kStates,       Cell::kStages,
          norms_of_cell<Cell>(), Cell::kInput,        Cell::kGates,
          Cell::kSaved,          Cell::kDeltas,       cells::kNormedBlocks<Cell>,
          Cell::input_delta,     Cell::vector_delta,  Cell::delta_stage,
          first_delta<Cell>,     units_of_stage<Cell>};
}

template <class Cell, class F, int... stage>
constexpr CellKernels kernels_of_cell(std::integer_sequence<int, stage...>) {
  return {table_of_cell<Cell>(),
          {launch_forward<Cell, F, stage>...},
          {launch_backward<Cell, F, stage>...}};
}

template <class F>
constexpr Types kTypesOf = {kDtypeOf<typename F::Edge>,  kDtypeOf<typename F::Row>,
                            kDtypeOf<typename F::Delta>, kDtypeOf<typename F::Real>,
                            kDtypeOf<typename F::State>, F::kMixed};

}  // namespace fusedrnn::cuda

// Defines fusedrnn::cuda::<name>, declared in step.h; the arguments after the name are Format's.
#define FUSEDRNN_DEFINE_CUDA_KERNELS(name, ...)                                        \
  namespace fusedrnn::cuda {                                                           \
  namespace {                                                                          \
  using KernelFormat = Format<__VA_ARGS__>;                                            \
  constexpr CellKernels kCells[] = {FUSEDRNN_FOR_EACH_CELL(FUSEDRNN_CUDA_KERNELS_OF)}; \
  }                                                                                    \
  const Kernels name = {kTypesOf<KernelFormat>, kCells};                               \
  }

#define FUSEDRNN_CUDA_KERNELS_OF(text, ...)   \
  kernels_of_cell<__VA_ARGS__, KernelFormat>( \
      std::make_integer_sequence<int, cells::kStageCount<__VA_ARGS__>>{}),
