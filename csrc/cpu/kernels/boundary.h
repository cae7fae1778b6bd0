// States before the first and after the last step of a forward pass.
#pragma once

#include "cpu/kernels/forward_context.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class F>
FUSEDRNN_ONCE void enter_first_step(const ForwardContext<F>& context) {
  using Edge = typename F::Edge;
  using V = typename F::V;
  const uint8_t* flags = context.flags_at(0);
  const int64_t slot = context.slots.entering(0), U = context.panel_units;
  for (int s = 0; s < context.shape.state_count; ++s) {
    const Matrix& initial = context.call.state_0[s];
    const Edge* reset = static_cast<const Edge*>(context.call.reset_state[s].data);
    const char size = context.shape.states[s].size;
    const int64_t units = extent(context.p, size);
    const Range panels = context.panels(size);
    for (int64_t b = context.share.rows.begin; b < context.share.rows.end; ++b) {
      const Edge* src = reset;
      if (!is_cut(flags, b)) {
        src = initial.data == nullptr ? nullptr
                                      : static_cast<const Edge*>(initial.data) + b * initial.stride;
      }
      for (int64_t unit = panels.begin * U; unit < panels.end * U; unit += V::width) {
        context.store_state(s, slot, b, unit, load_columns<V>(src, unit, units),
                            context.shape.h_stage, units);
      }
    }
  }
}

template <class F>
FUSEDRNN_ONCE void leave_last_step(const ForwardContext<F>& context) {
  using Edge = typename F::Edge;
  using V = typename F::V;
  const int64_t slot = context.slots.entering(context.p.T), U = context.panel_units;
  for (int s = 0; s < context.shape.state_count; ++s) {
    const Matrix& last = context.call.state_n[s];
    if (last.data == nullptr) continue;
    const char size = context.shape.states[s].size;
    const int64_t units = extent(context.p, size);
    const Range panels = context.panels(size);
    for (int64_t b = context.share.rows.begin; b < context.share.rows.end; ++b) {
      Edge* dst = static_cast<Edge*>(last.data) + b * last.stride;
      for (int64_t unit = panels.begin * U; unit < panels.end * U && unit < units;
           unit += V::width) {
        context.load_state(s, slot, b, unit).store(dst + unit, lanes_at<V>(unit, units));
      }
    }
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
