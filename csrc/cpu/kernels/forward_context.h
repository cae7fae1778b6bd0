// What a thread of a forward pass knows: its share of the work, and where everything lies.
#pragma once

#include "cpu/kernels/pack.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Packed panels: `data` is that of panel `first`.
template <class F>
struct Panels {
  const typename F::Panel* data;
  int64_t first;
};

template <class F>
struct ForwardContext {
  using Edge = typename F::Edge;
  using Real = typename F::Real;
  using Row = typename F::Row;
  using V = typename F::V;
  static constexpr int W = V::width;

  ForwardContext(const ForwardJob& forward_job, int thread)
      : job(forward_job),
        shape(*job.shape),
        call(*job.call),
        p(call.problem),
        slots{p.T, p.reverse, job.save},
        share(job.grid, p.B, thread),
        panel_units(int64_t{shape.unit_vectors} * W),
        h_panels(share.of_group(blocks_of(p.H, panel_units))),
        p_panels(share.of_group(blocks_of(p.P, panel_units))),
        projection_rows(job.chunk_steps * share.rows.size()),
        projection(part_of<Real>(job.projection)),
        staged(part_of<Row>(job.staged)),
        quantised(part_of<Row>(job.quantised)),
        staged_scales(part_of<float>(job.row_scales)),
        quantised_scales(staged_scales + projection_rows) {}

  // The thread's part of a buffer that all threads share out.
  template <class Number>
  FUSEDRNN_MEMBER Number* part_of(const PerThread& buffer) const {
    return reinterpret_cast<Number*>(static_cast<char*>(buffer.data) + share.thread * buffer.bytes);
  }
  // Its panels of units.
  FUSEDRNN_MEMBER Range panels(char units) const { return units == 'P' ? p_panels : h_panels; }

  FUSEDRNN_MEMBER int64_t state_offset(int64_t slot, int64_t b) const {
    return (slot * p.B + b) * job.ld_state;
  }
  FUSEDRNN_MEMBER Row* operand_row(int stage, int64_t slot, int64_t b) const {
    return static_cast<Row*>(job.kept.operands[stage]) + state_offset(slot, b);
  }
  FUSEDRNN_MEMBER typename F::Passed* passed_row(int stage, int64_t slot, int64_t b) const {
    return static_cast<typename F::Passed*>(job.kept.operands[stage]) + state_offset(slot, b);
  }
  FUSEDRNN_MEMBER typename F::State* h_row(int64_t slot, int64_t b) const {
    return static_cast<typename F::State*>(job.kept.states[0]) + state_offset(slot, b);
  }
  FUSEDRNN_MEMBER Real* state_row(int s, int64_t slot, int64_t b) const {
    return static_cast<Real*>(job.kept.states[s]) + state_offset(slot, b);
  }
  FUSEDRNN_MEMBER V load_state(int s, int64_t slot, int64_t b, int64_t unit) const {
    return s == 0 ? V::load(h_row(slot, b) + unit) : V::load(state_row(s, slot, b) + unit);
  }

  // Units from `unit` on of a row of `units` that products multiply; the last vector brings the
  // zeros that fill the row up. Its own lanes beyond the last unit need not be zero: an infinite x
  // times the zeros of packed weights is NaN.
  template <class Number>
  FUSEDRNN_MEMBER void store_operand(Number* row, int64_t unit, int64_t units, V v) const {
    const int64_t left = units - unit;
    if (F::kDepthUnit == 1 || F::kQuantised || left >= W) {
      v.store(row + unit);
    } else {
      V::zero().store(row + unit);
      if (left > 0) v.store(row + unit, static_cast<int>(left));
    }
    if constexpr (F::kDepthUnit > W && !F::kQuantised) {
      if (left <= W && unit + W < F::padded(units)) V::zero().store(row + unit + W);
    }
  }
  // `h_stage`: that which multiplies h, or -1.
  FUSEDRNN_MEMBER void store_state(int s, int64_t slot, int64_t b, int64_t unit, V v, int h_stage,
                                   int64_t units) const {
    if (s > 0) {
      v.store(state_row(s, slot, b) + unit);
    } else if constexpr (F::kMixed) {
      v.store(h_row(slot, b) + unit);
      if constexpr (!F::kQuantised) {
        if (h_stage >= 0) {
          store_operand(operand_row(h_stage, slot, b), unit, units, F::round_operand(v));
        }
      }
    } else {
      store_operand(h_row(slot, b), unit, units, v);
    }
  }

  FUSEDRNN_MEMBER const Edge* x_row(int64_t step, int64_t b) const {
    return static_cast<const Edge*>(call.x.data) + slots.time(step) * call.x.t_stride +
           b * call.x.b_stride;
  }
  // Of a chunk; `row` counts the thread's sequences of each of its steps.
  FUSEDRNN_MEMBER Real* projection_at(int64_t panel, int64_t row, int64_t panel_numbers) const {
    return projection + ((panel - h_panels.begin) * projection_rows + row) * panel_numbers;
  }
  FUSEDRNN_MEMBER const uint8_t* flags_at(int64_t step) const {
    return call.flags == nullptr || step == p.T ? nullptr : call.flags + slots.time(step) * p.B;
  }

  const ForwardJob& job;
  const KernelShape& shape;
  const ForwardCall& call;
  const Problem& p;
  const Slots slots;
  const Share share;
  const int64_t panel_units;
  const Range h_panels, p_panels;
  const int64_t projection_rows;
  Real* const projection;
  Row* const staged;
  Row* const quantised;
  float* const staged_scales;
  float* const quantised_scales;
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
