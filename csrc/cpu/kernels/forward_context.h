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
  Range rows;                 // those that live
  int64_t chunk_row;          // of the first of them, among those that have been projected
  const uint8_t* flags;       // of this step, or null
  const uint8_t* next_flags;  // of the next one, or null
  bool turned;                // whether it goes through its panels from the last to the first
  bool shows_states;          // whether a state is wanted of every step beside y

  template <class Context>
  FUSEDRNN_MEMBER ForwardStep(const Context& context, int64_t step, int64_t first_chunk_row)
      : time(context.slots.time(step)),
        entering(context.slots.entering(step)),
        leaving(context.slots.leaving(step)),
        of_step(context.slots.of_step(step)),
        rows(context.living(step)),
        chunk_row(first_chunk_row),
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
  using Base::W, Base::job, Base::call, Base::p, Base::slots, Base::sequences, Base::state_offset;
  using typename Base::Edge, typename Base::Real, typename Base::Row, typename Base::V;

  ForwardContext(const ForwardJob& its_job, int thread)
      : Base(its_job, thread, int64_t{its_job.shape->unit_vectors} * W, its_job.save),
        projection_rows(job.chunk_steps * sequences.count),
        has_two_places(F::MatrixUnit::kPresent &&
                       this->h_panels.size() * projection_rows >= 2 * F::MatrixUnit::kRows),
        projects_tiles(has_two_places && p.T > 1 && job.stream.data == nullptr &&
                       this->shape.stage_count == 1 && this->shape.norm_count == 0),
        projection(this->template part_of<Real>(job.projection)),
        inputs(this->template part_of<const Edge*>(job.inputs)),
        staged(this->template part_of<Row>(job.staged)),
        quantised(this->template part_of<Row>(job.quantised)),
        staged_scales(this->template part_of<float>(job.row_scales)),
        quantised_scales(staged_scales + projection_rows) {}

  // Vectors in a panel of the input projection.
  FUSEDRNN_MEMBER int projection_vectors() const {
    return this->shape.gates * this->shape.unit_vectors;
  }
  FUSEDRNN_MEMBER Row* operand_row(int stage, int64_t slot, int64_t row) const {
    return static_cast<Row*>(job.kept.operands[stage]) + state_offset(slot, row);
  }
  FUSEDRNN_MEMBER typename F::Passed* passed_row(int stage, int64_t slot, int64_t row) const {
    return static_cast<typename F::Passed*>(job.kept.operands[stage]) + state_offset(slot, row);
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
  FUSEDRNN_MEMBER void store_state(int s, int64_t slot, int64_t row, int64_t unit, V v, int h_stage,
                                   int64_t units) const {
    if (s > 0) {
      v.store(this->state_row(s, slot, row) + unit);
    } else if constexpr (F::kMixed) {
      v.store(this->h_row(slot, row) + unit);
      if constexpr (!F::kQuantised) {
        if (h_stage >= 0) {
          store_operand(operand_row(h_stage, slot, row), unit, units, F::round_operand(v));
        }
      }
    } else {
      store_operand(this->h_row(slot, row), unit, units, v);
    }
  }

  FUSEDRNN_MEMBER Rows<RowNorm<Real>> norms_at(int64_t step) const {
    const int64_t norms = this->shape.norm_count;
    return {static_cast<RowNorm<Real>*>(job.kept.norms) + (step * p.B + sequences.first) * norms,
            norms * sequences.step};
  }
  // Of a chunk; `row` counts those that live of each of its steps.
  FUSEDRNN_MEMBER Real* projection_at(int64_t panel, int64_t row, int64_t panel_numbers) const {
    return projection + ((panel - this->h_panels.begin) * projection_rows + row) * panel_numbers;
  }

  const int64_t projection_rows;  // there is room for
  const bool has_two_places;  // for the projections of a tile of a matrix unit, and the last one
  // Whether the inputs of tiles are projected when a step of many rows comes to them. A matrix unit
  // is done with a block before stores to more than the first-level cache holds are.
  const bool projects_tiles;
  Real* const projection;
  const Edge** const inputs;
  Row* const staged;
  Row* const quantised;
  float* const staged_scales;
  float* const quantised_scales;
};

// The sums of a panel of the only row there is.
template <class F>
FUSEDRNN_INLINE void multiply_unpacked(const ForwardContext<F>& context,
                                       const ProductShape& product, const PackedProduct& packed,
                                       int64_t panel, const typename F::Row* row,
                                       typename F::Real* sums) {
  const int vectors = context.shape.unit_vectors;
  const int64_t numbers = int64_t{product.gates} * vectors * F::V::width;
  multiply_unpacked<F>(context.p, product, vectors, context.call.parameters[product.weights], panel,
                       row, static_cast<const typename F::Real*>(packed.bias) + panel * numbers,
                       sums);
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
