// The gates of a lean problem once more, before the walk back over a chunk of steps: the states
// that enter its steps are known, so all of its rows (t,b) are the sequences of a single step. Each
// product sums over k as it did in forward, so the gates have the same bits.
#pragma once

#include "cpu/kernels/backward_context.h"
#include "cpu/kernels/forward.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// The job of `rows` rows from row `first` of the chunk on; `call` becomes its call.
template <class F>
FUSEDRNN_ONCE void place_again(const BackwardContext<F>& context, int64_t first, int64_t rows,
                               ForwardCall& call, ForwardJob& job) {
  using Row = typename F::Row;
  const KernelShape& shape = context.shape;
  const States& kept = context.job.kept;
  const int64_t B = context.p.B, slot = context.chunk.begin + context.p.reverse;
  job.again.first_row = context.chunk.begin * B + first;
  job.call = &call;
  call.problem.B = rows;
  if (context.call.flags != nullptr) call.flags = context.call.flags + job.again.first_row;
  job.kept.states[0] = context.h_row(slot, first);
  for (int s = 1; s < shape.state_count; ++s) {
    job.kept.states[s] = context.state_row(s, slot, first);
  }
  for (int i = 0; i < shape.stage_count; ++i) {
    if (kept.operands[i] == nullptr) continue;
    const int64_t row = context.state_offset(i == shape.h_stage ? slot : 0, first);
    job.kept.operands[i] = static_cast<Row*>(kept.operands[i]) + row;
  }
  job.kept.saved = static_cast<char*>(kept.saved) +
                   first * context.saved_numbers() * static_cast<int64_t>(shape.saved_bytes);
  job.kept.norms = static_cast<RowNorm<typename F::Real>*>(kept.norms) + first * shape.norm_count;
}

// The thread's share of the chunk's rows.
template <class F>
FUSEDRNN_ONCE void compute_gates_again(const BackwardContext<F>& context,
                                       typename F::MatrixUnit::Registers& registers) {
  using Real = typename F::Real;
  ForwardCall call = *context.job.again.call;
  ForwardJob job = context.job.again;
  job.again.unwanted = context.template part_of<Real>(context.job.unwanted);
  job.projection.data = context.template part_of<Real>(job.projection);
  job.staged.data = context.template part_of<typename F::Row>(job.staged);
  job.sums.data = context.template part_of<Real>(job.sums);
  job.passed = context.template part_of<Real>(context.job.again_passed);
  const Range own = context.share.of_all(context.chunk.steps() * context.p.B);
  for (int64_t row = own.begin; row < own.end; row += context.job.again_rows) {
    const int64_t left = own.end - row;
    place_again(context, row, left < context.job.again_rows ? left : context.job.again_rows, call,
                job);
    Forward<F>(job, 0, registers).run_again();
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
