// States before the first and after the last step of a forward pass, and at checkpoints between.
#pragma once

#include "cpu/kernels/forward_context.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class F>
FUSEDRNN_ONCE void enter_first_step(const ForwardContext<F>& context) {
  using Edge = typename F::Edge;
  using V = typename F::V;
  const int64_t U = context.panel_units;
  for (int s = 0; s < context.shape.state_count; ++s) {
    const Matrix& initial = context.call.state_0[s];
    const Edge* reset = static_cast<const Edge*>(context.call.reset_state[s].data);
    const char size = context.shape.states[s].size;
    const int64_t units = extent(context.p, size);
    const Range panels = context.panels(size);
    for (int64_t row = 0; row < context.sequences.count; ++row) {
      const int64_t step = context.first_step(row), slot = context.slots.entering(step);
      const Edge* src = reset;
      if (!is_cut(context.flags_at(step), row)) {
        src = row_of<const Edge>(initial, context.sequences.number(row));
      }
      for (int64_t unit = panels.begin * U; unit < panels.end * U; unit += V::width) {
        context.store_state(s, slot, row, unit, load_columns<V>(src, unit, units),
                            context.shape.h_stage, units);
      }
    }
  }
}

template <class F>
FUSEDRNN_ONCE void leave_last_step(const ForwardContext<F>& context) {
  using Edge = typename F::Edge;
  using V = typename F::V;
  const int64_t U = context.panel_units;
  for (int s = 0; s < context.shape.state_count; ++s) {
    const Matrix& last = context.call.state_n[s];
    if (last.data == nullptr) continue;
    const char size = context.shape.states[s].size;
    const int64_t units = extent(context.p, size);
    const Range panels = context.panels(size);
    for (int64_t row = 0; row < context.sequences.count; ++row) {
      const int64_t slot = context.standing_slot(row, context.p.T);
      Edge* const dst = row_of<Edge>(last, context.sequences.number(row));
      for (int64_t unit = panels.begin * U; unit < panels.end * U && unit < units;
           unit += V::width) {
        context.load_state(s, slot, row, unit).store(dst + unit, lanes_at<V>(unit, units));
      }
    }
  }
}

// What y and states of every step show of rows that do not live at a step: zeros, or the state that
// stands still.
template <class F>
FUSEDRNN_ONCE void show_standing(const ForwardContext<F>& context, const ForwardStep& step,
                                 int64_t number) {
  using Edge = typename F::Edge;
  using V = typename F::V;
  const int64_t U = context.panel_units;
  for (int s = 0; s < context.shape.state_count; ++s) {
    const char size = context.shape.states[s].size;
    const int64_t units = extent(context.p, size);
    const Range panels = context.panels(size);
    const auto show = [&](const Sequence& y) FUSEDRNN_LAMBDA {
      if (y.data == nullptr) return;
      const CallerRows<Edge> rows = context.template caller_rows<Edge>(y, step.time, 0);
      for (int64_t row = step.rows.end; row < context.sequences.count; ++row) {
        const bool shown = is_shown(step.flags, row);
        const int64_t slot = shown ? context.standing_slot(row, number) : 0;
        Edge* const dst = rows.at(row, 0);
        for (int64_t unit = panels.begin * U; unit < panels.end * U && unit < units;
             unit += V::width) {
          const V v = shown ? context.load_state(s, slot, row, unit) : V::zero();
          v.store(dst + unit, lanes_at<V>(unit, units));
        }
      }
    };
    if (s == 0) show(context.call.y);
    show(context.call.state_y[s]);
  }
}

// Calls visit(s, row, unit, vector of the checkpoint) for the thread's own part of the states.
template <class F, class Visit>
FUSEDRNN_INLINE void for_checkpoint(const ForwardContext<F>& context, int64_t number,
                                    const Visit& visit) {
  const int64_t U = context.panel_units;
  for (int s = 0; s < context.shape.state_count; ++s) {
    const Range panels = context.panels(context.shape.states[s].size);
    for (int64_t row = 0; row < context.sequences.count; ++row) {
      for (int64_t unit = panels.begin * U; unit < panels.end * U; unit += F::V::width) {
        visit(s, row, unit, context.state_offset(number, row) + unit);
      }
    }
  }
}

// The states that enter a step, where a checkpoint is of them.
template <class F>
FUSEDRNN_ONCE void leave_checkpoint(const ForwardContext<F>& context, int64_t step) {
  const Checkpoints& checkpoints = context.job.checkpoints;
  if (checkpoints.steps == 0 || context.job.save) return;  // or they are where it began
  const int64_t time = context.slots.time(step);
  const int64_t before = context.p.reverse ? time + 1 : time;  // of the first step of each
  if (step > 0 && before % checkpoints.steps != 0) return;
  for_checkpoint(context, time / checkpoints.steps,
                 [&](int s, int64_t row, int64_t unit, int64_t at) FUSEDRNN_LAMBDA {
                   const int64_t slot = context.standing_slot(row, step);
                   const auto v = context.load_state(s, slot, row, unit);
                   if (s == 0) {
                     v.store(static_cast<typename F::State*>(checkpoints.states[0]) + at);
                   } else {
                     v.store(static_cast<typename F::Real*>(checkpoints.states[s]) + at);
                   }
                 });
}

template <class F>
FUSEDRNN_ONCE void enter_checkpoint(const ForwardContext<F>& context, int64_t number) {
  using V = typename F::V;
  void* const* const states = context.job.checkpoints.states;
  for_checkpoint(
      context, number, [&](int s, int64_t row, int64_t unit, int64_t at) FUSEDRNN_LAMBDA {
        const V v = s == 0 ? V::load(static_cast<const typename F::State*>(states[0]) + at)
                           : V::load(static_cast<const typename F::Real*>(states[s]) + at);
        const int64_t slot = context.standing_slot(row, 0);
        context.store_state(s, slot, row, unit, v, context.shape.h_stage,
                            extent(context.p, context.shape.states[s].size));
      });
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
