// The gates that a forward pass left for backward, in the caller's type and layout.
#pragma once

#include "cpu/kernels/context.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class Cell, class F>
void gates_of(const GatesCall& call, const void* saved) {
  using V = typename F::V;
  using Saved = SavedOf<Cell, F>;
  constexpr int64_t U = int64_t{Cell::kUnitVectors} * V::width, S = Cell::kSaved;
  const int64_t H = call.problem.H, panels = blocks_of(H, U);
  for (int64_t row = 0; row < call.problem.T * call.problem.B; ++row) {
    const bool exists = is_valid(call.flags, row);
    const int64_t t = row / call.problem.B, b = row % call.problem.B;
    auto* const dst = static_cast<typename F::Edge*>(call.gates.data) + t * call.gates.t_stride +
                      b * call.gates.b_stride;
    for (int g = 0; g < call.count; ++g) {
      for (int64_t unit = 0; unit < H; unit += V::width) {
        const Saved* src =
            static_cast<const Saved*>(saved) + ((row * panels + unit / U) * S + g) * U + unit % U;
        const V gate = exists ? V::load(src) : V::zero();
        gate.store(dst + g * H + unit, lanes_at<V>(unit, H));
      }
    }
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
