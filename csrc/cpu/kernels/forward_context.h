// What a thread of a forward pass knows: its share of the work, and where everything lies.
#pragma once

#include "cpu/kernels/pack.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Time in the order of processing, and where the states that enter and leave a step lie.
//
// In training slot t (forward) or t+1 (reverse) holds the state that enters step t, already cut
// where a reset says so, and the slot on its other side the state that leaves it; so T+1 slots,
// each written once. In inference two slots take turns.
struct Slots {
  int64_t T;
  bool reverse, save;

  FUSEDRNN_MEMBER int64_t time(int64_t step) const { return reverse ? T - 1 - step : step; }
  FUSEDRNN_MEMBER int64_t entering(int64_t step) const {
    return save ? time(step) + reverse : step & 1;
  }
  // The slot after the last step is that which a further step would enter.
  FUSEDRNN_MEMBER int64_t leaving(int64_t step) const { return entering(step + 1); }
  // Buffers with one slot a step (gates, the inputs of later phases).
  FUSEDRNN_MEMBER int64_t of_step(int64_t step) const { return save ? time(step) : 0; }
};

template <class Cell, class F>
struct ForwardContext {
  using Edge = typename F::Edge;
  using Real = typename F::Real;
  using Row = typename F::Row;
  using Panel = typename F::Panel;
  using V = typename F::V;
  using Dot = typename F::Dot;
  using Saved = SavedOf<Cell, F>;
  static constexpr int W = V::width;
  static constexpr int kUnitVectors = Cell::kUnitVectors;
  static constexpr int U = kUnitVectors * W;
  static constexpr int G = Cell::kGates;
  static constexpr int S = Cell::kSaved;

  ForwardContext(const ForwardJob& forward_job, int thread_number)
      : job(forward_job),
        call(*job.call),
        p(call.problem),
        slots{p.T, p.reverse, job.save},
        thread(thread_number),
        threads(job.grid.row_groups * job.grid.unit_groups),
        group(thread / job.grid.unit_groups),
        rows(share(p.B, job.grid.row_groups, group)),
        panels(share(job.panels, job.grid.unit_groups, thread % job.grid.unit_groups)),
        projection(own(job.projection)),
        projection_rows(job.chunk_steps * (rows.end - rows.begin)),
        staged(own(job.staged)),
        quantised(own(job.quantised)),
        staged_scales(own(job.row_scales)),
        quantised_scales(staged_scales + projection_rows) {}

  // Packed panels: `data` is that of panel `first`.
  struct Packed {
    const Panel* data;
    int64_t first;
  };

  template <class Number>
  static FUSEDRNN_MEMBER Number* to(void* p) {
    return static_cast<Number*>(p);
  }
  // The thread's part of a buffer that all threads share out; becomes a pointer of any type.
  struct Own {
    void* p;
    template <class Number>
    FUSEDRNN_MEMBER operator Number*() const {
      return static_cast<Number*>(p);
    }
  };
  FUSEDRNN_MEMBER Own own(const PerThread& buffer) const {
    return {static_cast<char*>(buffer.data) + thread * buffer.bytes};
  }
  FUSEDRNN_MEMBER int64_t state_offset(int64_t slot, int64_t b) const {
    return (slot * p.B + b) * job.ld_state;
  }
  FUSEDRNN_MEMBER Row* input_row(int phase, int64_t slot, int64_t b) const {
    return to<Row>(job.inputs[phase]) + state_offset(slot, b);
  }
  FUSEDRNN_MEMBER typename F::Passed* passed_row(int phase, int64_t slot, int64_t b) const {
    return to<typename F::Passed>(job.inputs[phase]) + state_offset(slot, b);
  }
  FUSEDRNN_MEMBER typename F::State* h_row(int64_t slot, int64_t b) const {
    return to<typename F::State>(job.states[0]) + state_offset(slot, b);
  }
  FUSEDRNN_MEMBER Real* state_row(int s, int64_t slot, int64_t b) const {
    return to<Real>(job.states[s]) + state_offset(slot, b);
  }
  FUSEDRNN_MEMBER Saved* saved_at(int64_t slot, int64_t b, int64_t panel) const {
    if (job.saved == nullptr) return nullptr;
    return to<Saved>(job.saved) + ((slot * p.B + b) * job.panels + panel) * S * U;
  }
  // What products multiply; the last vector of units brings the zeros that fill the row up. Its own
  // lanes beyond H need not be zero: an infinite x times the zeros of packed weights is NaN.
  template <class Number>
  FUSEDRNN_MEMBER void store_operand(Number* row, int64_t unit, V v) const {
    const int64_t left = p.H - unit;
    if (F::kDepthUnit == 1 || F::kQuantised || left >= W) {
      v.store(row + unit);
    } else {
      V::zero().store(row + unit);
      if (left > 0) v.store(row + unit, static_cast<int>(left));
    }
    if constexpr (F::kDepthUnit > W && !F::kQuantised) {
      if (left <= W && unit + W < F::padded(p.H)) V::zero().store(row + unit + W);
    }
  }
  FUSEDRNN_MEMBER void store_h(int64_t slot, int64_t b, int64_t unit, V h) const {
    if constexpr (F::kMixed) {
      h.store(h_row(slot, b) + unit);
      if constexpr (!F::kQuantised) {
        store_operand(input_row(0, slot, b), unit, F::round_operand(h));
      }
    } else {
      store_operand(h_row(slot, b), unit, h);
    }
  }
  FUSEDRNN_MEMBER void store_y(int64_t time, int64_t b, int64_t unit, V h) const {
    Edge* dst = to<Edge>(call.y.data) + time * call.y.t_stride + b * call.y.b_stride + unit;
    if (p.H - unit >= W) {
      h.store(dst);
    } else {
      h.store(dst, static_cast<int>(p.H - unit));
    }
  }
  FUSEDRNN_MEMBER const Edge* x_row(int64_t step, int64_t b) const {
    return static_cast<const Edge*>(call.x.data) + slots.time(step) * call.x.t_stride +
           (rows.begin + b) * call.x.b_stride;
  }

  FUSEDRNN_MEMBER Real* projection_at(int64_t panel, int64_t row) const {
    return projection + ((panel - panels.begin) * projection_rows + row) * G * U;
  }

  const ForwardJob& job;
  const ForwardCall& call;
  const Problem& p;
  const Slots slots;
  const int thread, threads, group;
  const Range rows;    // sequences of this thread
  const Range panels;  // of units of this thread
  Real* const projection;
  const int64_t projection_rows;
  Row* const staged;
  Row* const quantised;
  float* const staged_scales;
  float* const quantised_scales;
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
