// Backpropagation through time, of one thread. Each step multiplies the gradients of the following
// step by the recurrent weights and runs the cell's backward on the result while the tile is at
// hand; only those gradients (delta) are exchanged. The gradients of the parameters come after the
// walk, as products and sums over all steps.
#pragma once

#include "cpu/kernels/backward_stage.h"
#include "cpu/kernels/parameter_gradients.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class Cell, class F>
class Backward {
 public:
  Backward(const BackwardJob& job, int thread) : context_(job, thread) {}

  void run() {
    pack_backward(context_);
    begin_carry(context_);
    context_.wait_for_all();
    for (int64_t step = context_.p.T - 1; step >= 0; --step) walk_stages<kStages - 1>(step);
    end_carry(context_, registers_);
    context_.wait_for_all();
    parameter_gradients(context_, registers_);
  }

 private:
  static constexpr int kStages = cells::kStageCount<Cell>;

  template <int Index>
  FUSEDRNN_MEMBER void walk_stages(int64_t step) {
    using Stage = BackwardStage<Cell, F, Index>;
    for_products<F, kRecurrentPanel>(registers_, context_.p.B, Stage(context_, step),
                                     context_.panels(Stage::kStage.units), context_.share.rows,
                                     turns(step));
    if (Stage::kStage.meets_backward) context_.wait_for_group();
    if constexpr (Index > 0) walk_stages<Index - 1>(step);
  }

  const BackwardContext<F> context_;
  typename F::MatrixUnit::Registers registers_;
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
