// The gates that a forward pass left for backward, in the caller's type and layout.
#pragma once

#include "cpu/kernels/context.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class F, class Saved>
FUSEDRNN_INLINE void read_gates(const GatesCall& call, const KernelShape& shape, const Order& order,
                                const Saved* saved) {
  using V = typename F::V;
  const int64_t U = int64_t{shape.unit_vectors} * V::width, S = shape.saved;
  const int64_t H = call.problem.H, B = call.problem.B, panels = blocks_of(H, U);
  for (int64_t row = 0; row < call.problem.T * B; ++row) {
    const bool exists = is_valid(call.flags, row);
    const int64_t t = row / B, b = row % B, kept = t * B + order.place(b);
    auto* const dst = static_cast<typename F::Edge*>(call.gates.data) + t * call.gates.t_stride +
                      b * call.gates.b_stride;
    for (int g = 0; g < call.count; ++g) {
      for (int64_t unit = 0; unit < H; unit += V::width) {
        const Saved* src = saved + ((kept * panels + unit / U) * S + g) * U + unit % U;
        const V gate = exists ? V::load(src) : V::zero();
        gate.store(dst + g * H + unit, lanes_at<V>(unit, H));
      }
    }
  }
}

template <class F>
void run_gates(const GatesCall& call, const KernelShape& shape, const Order& order,
               const void* saved) {
  using Real = typename F::Real;
  if (shape.saved_bytes == sizeof(Real)) {
    read_gates<F>(call, shape, order, static_cast<const Real*>(saved));
  } else {
    read_gates<F>(call, shape, order, static_cast<const typename F::Saved*>(saved));
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
