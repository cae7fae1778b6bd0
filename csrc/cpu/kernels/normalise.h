// Norms over rows (cells::Norm): their statistics before a stage's map, and after its backward what
// the gradients of normalised numbers become on the way through them. A thread has all units of its
// sequences, and sums over them in one order.
#pragma once

#include "cpu/kernels/backward_context.h"
#include "cpu/kernels/forward_context.h"
#include "cpu/kernels/row_kernels.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// The norms of the input projection, of some steps of a chunk, whose rows begin with `chunk_row`.
// No step waits for the one before. Normalised numbers go where they are saved, if they are, else
// take the place of the others. Panels are of one vector.
template <class F>
FUSEDRNN_ONCE void normalise_inputs(const ForwardContext<F>& context, Range steps,
                                    int64_t chunk_row) {
  using Real = typename F::Real;
  constexpr int W = F::V::width;
  const KernelShape& shape = context.shape;
  const RowKernels<Real>& kernels = row_kernels<Real>();
  const int64_t numbers = context.projection_vectors() * W;
  const int64_t panel_numbers = context.projection_rows * numbers;
  auto* const saved = static_cast<Real*>(context.job.kept.saved);
  if (shape.normed_inputs < 0) return;
  for (int64_t number = steps.begin; number < steps.end; ++number) {
    const ForwardStep step(context, number, chunk_row);
    chunk_row += step.rows.size();
    const Rows<RowNorm<Real>> norms = context.norms_at(step.of_step);
    for (int n = 0; n < shape.norm_count; ++n) {
      const NormShape& norm = shape.norms[n];
      if (norm.of != cells::Normed::input) continue;
      const NormedRow normed{norm.gates, context.p.H, norm.epsilon};
      for (int64_t row = step.rows.begin; row < step.rows.end; ++row) {
        if (!is_valid(step.flags, row)) continue;
        Real* const a =
            context.projection_at(0, step.chunk_row + row, numbers) + int64_t{norm.first} * W;
        GateVectors<Real> to{a, panel_numbers, W};
        if (saved != nullptr) {
          to = {saved + context.saved_offset(step.of_step, row) + int64_t{norm.saved} * W,
                int64_t{shape.saved} * W, W};
        }
        const GateVectors<const Real> from{a, panel_numbers, W};
        RowNorm<Real>& found = *norms.at(row, n);
        found = kernels.find_norm(normed, from);
        kernels.normalise(normed, from, found, to);
      }
    }
  }
}

// The other norms of a stage, of the thread's rows that live. `sums`: those of its product.
template <class F>
FUSEDRNN_ONCE void find_norms(const ForwardContext<F>& context, int index,
                              const typename F::Real* sums, Range step_rows,
                              const ForwardArrays<typename F::Real>& arrays,
                              const Rows<RowNorm<typename F::Real>>& norms) {
  using Real = typename F::Real;
  constexpr int W = F::V::width;
  const KernelShape& shape = context.shape;
  const RowKernels<Real>& kernels = row_kernels<Real>();
  const StageShape& stage = shape.stages[index];
  const int64_t rows = step_rows.size(), vectors = stage_vectors(shape, stage);
  for (int n = 0; n < shape.norm_count; ++n) {
    const NormShape& norm = shape.norms[n];
    if (norm.stage != index || norm.of == cells::Normed::input) continue;
    const NormedRow normed{norm.gates, context.p.H, norm.epsilon};
    for (int64_t row = 0; row < rows; ++row) {
      if (!is_valid(arrays.flags, row)) continue;
      RowNorm<Real>& found = *norms.at(row, n);
      if (norm.of == cells::Normed::passed) {
        found = kernels.find_norm(normed, {arrays.passed.at(row, 0), W, 0});
        continue;
      }
      const GateVectors<const Real> u{sums + (row * vectors + norm.first - stage.product.first) * W,
                                      rows * vectors * W, W};
      if (norm.of == cells::Normed::recurrent) {
        found = kernels.find_norm(normed, u);
        continue;
      }
      const Real* const a =
          arrays.projection + row * arrays.projection_row + int64_t{norm.first} * W;
      found = kernels.find_norm_of_sum(normed, {a, arrays.projection_panel, W}, u);
    }
  }
}

// What a row's product reads of some blocks of deltas: of gradients of numbers, or null: zeros, of
// a row that does not exist. Behind the last unit there are zeros.
template <class F>
FUSEDRNN_ONCE void store_deltas(const BackwardContext<F>& context, const typename F::Real* from,
                                int64_t stride, int blocks, typename F::Row* deltas) {
  using V = typename F::V;
  const int64_t H = context.p.H, padded = F::padded(H);
  for (int g = 0; g < blocks; ++g, deltas += context.job.delta_block) {
    for (int64_t unit = 0; unit < padded; unit += V::width) {
      const bool filled = from == nullptr || unit >= H;
      const V d = filled ? V::zero() : F::round_gradient(V::load(from + g * stride + unit));
      context.store_delta(deltas + unit, d, unit, H);
    }
  }
}

// From the gradients of a stage's normalised numbers, as its map left them, to those of the
// numbers.
template <class F>
FUSEDRNN_ONCE void through_norms(const BackwardContext<F>& context, const BackwardStep& step,
                                 int index) {
  using Real = typename F::Real;
  const KernelShape& shape = context.shape;
  const BackwardJob& job = context.job;
  const RowKernels<Real>& kernels = row_kernels<Real>();
  constexpr int W = F::V::width;
  constexpr bool kInPlace = kSame<typename F::Row, Real> && kSame<typename F::Panel, Real>;
  const int64_t ld = job.ld_state, slot = context.kept_slot(step.time);
  for (int n = 0; n < shape.norm_count; ++n) {
    const NormShape& norm = shape.norms[n];
    if (norm.stage != index) continue;
    const NormedRow normed{norm.gates, context.p.H, norm.epsilon};
    for (int64_t row = step.rows.begin; row < step.rows.end; ++row) {
      const int64_t place = context.sequences.place(row);
      auto* const deltas = context.delta_row(step.time, row) + norm.delta * job.delta_block;
      if (!is_valid(step.flags, row)) {
        if (norm.delta >= 0) store_deltas<F>(context, nullptr, 0, norm.gates, deltas);
        continue;
      }
      Real* const dnormed =
          static_cast<Real*>(job.dnormed) + (place * shape.normed_blocks + norm.block) * ld;
      const Real* const saved = static_cast<const Real*>(job.kept.saved) +
                                context.saved_offset(slot, row) + int64_t{norm.saved} * W;
      const auto* const norms = static_cast<const RowNorm<Real>*>(job.kept.norms);
      const Real scale = norms[(slot * context.p.B + place) * shape.norm_count + n].scale;
      GateVectors<Real> to{dnormed, W, ld};
      const Real* beside = nullptr;
      if (norm.delta < 0) {
        // And what reaches the row beside its norm.
        to = {static_cast<Real*>(job.dpassed) + place * ld, W, ld};
        beside = dnormed + norm.gates * ld;
      } else if constexpr (kInPlace) {
        to = {deltas, W, job.delta_block};
      }
      const bool whole = !kInPlace || norm.delta < 0;
      kernels.through_norm(normed, {dnormed, W, ld}, {saved, int64_t{shape.saved} * W, W}, scale,
                           beside, to, whole);
      if (!kInPlace && norm.delta >= 0) store_deltas<F>(context, dnormed, ld, norm.gates, deltas);
    }
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
