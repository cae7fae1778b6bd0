// What a thread of a forward pass knows besides: where it writes to, and its own buffers.
#pragma once

#include "cpu/kernels/context.h"
#include "cpu/kernels/pack.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Packed panels: `data` is that of panel `first`.
template <class F>
struct Panels {
  const typename F::Panel* data;
  int64_t first;
};

// Where a step's arrays lie.
struct ForwardStep {
  int64_t time, entering, leaving, of_step;
  int64_t chunk_row;          // of the thread's first sequence
  const uint8_t* flags;       // of this step, or null
  const uint8_t* next_flags;  // of the next one, or null
  bool turned;                // whether it goes through its panels from the last to the first
  bool shows_states;          // whether a state is wanted of every step beside y

  // `chunk_step`: its number in the chunk of steps that has been projected.
  template <class Context>
  FUSEDRNN_MEMBER ForwardStep(const Context& context, int64_t step, int64_t chunk_step)
      : time(context.slots.time(step)),
        entering(context.slots.entering(step)),
        leaving(context.slots.leaving(step)),
        of_step(context.slots.of_step(step)),
        chunk_row(chunk_step * context.share.rows.size()),
        flags(context.flags_at(step)),
        next_flags(context.flags_at(step + 1)),
        turned(turns(step)),
        shows_states(false) {
    for (const Sequence& y : context.call.state_y) shows_states |= y.data != nullptr;
  }
};

template <class F>
struct ForwardContext : Context<F, ForwardJob> {
  using Base = Context<F, ForwardJob>;
  using Base::W, Base::job, Base::call, Base::p, Base::slots, Base::share, Base::state_offset;
  using typename Base::Edge, typename Base::Real, typename Base::Row, typename Base::V;

  ForwardContext(const ForwardJob& its_job, int thread)
      : Base(its_job, thread, int64_t{its_job.shape->unit_vectors} * W, its_job.save),
        projection_rows(job.chunk_steps * share.rows.size()),
        projection(this->template part_of<Real>(job.projection)),
        staged(this->template part_of<Row>(job.staged)),
        quantised(this->template part_of<Row>(job.quantised)),
        staged_scales(this->template part_of<float>(job.row_scales)),
        quantised_scales(staged_scales + projection_rows) {}

  // Vectors in a panel of the input projection.
  FUSEDRNN_MEMBER int projection_vectors() const {
    return this->shape.gates * this->shape.unit_vectors;
  }
  FUSEDRNN_MEMBER Row* operand_row(int stage, int64_t slot, int64_t b) const {
    return static_cast<Row*>(job.kept.operands[stage]) + state_offset(slot, b);
  }
  FUSEDRNN_MEMBER typename F::Passed* passed_row(int stage, int64_t slot, int64_t b) const {
    return static_cast<typename F::Passed*>(job.kept.operands[stage]) + state_offset(slot, b);
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
      v.store(this->state_row(s, slot, b) + unit);
    } else if constexpr (F::kMixed) {
      v.store(this->h_row(slot, b) + unit);
      if constexpr (!F::kQuantised) {
        if (h_stage >= 0) {
          store_operand(operand_row(h_stage, slot, b), unit, units, F::round_operand(v));
        }
      }
    } else {
      store_operand(this->h_row(slot, b), unit, units, v);
    }
  }

  FUSEDRNN_MEMBER const Edge* x_row(int64_t step, int64_t b) const {
    return static_cast<const Edge*>(call.x.data) + slots.time(step) * call.x.t_stride +
           b * call.x.b_stride;
  }
  // Of the thread's first sequence.
  FUSEDRNN_MEMBER RowNorm<Real>* norms_at(int64_t step) const {
    return static_cast<RowNorm<Real>*>(job.kept.norms) +
           (step * p.B + share.rows.begin) * this->shape.norm_count;
  }
  // Of a chunk; `row` counts the thread's sequences of each of its steps.
  FUSEDRNN_MEMBER Real* projection_at(int64_t panel, int64_t row, int64_t panel_numbers) const {
    return projection + ((panel - this->h_panels.begin) * projection_rows + row) * panel_numbers;
  }

  const int64_t projection_rows;
  Real* const projection;
  Row* const staged;
  Row* const quantised;
  float* const staged_scales;
  float* const quantised_scales;
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
