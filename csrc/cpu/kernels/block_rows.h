// The blocks of rows (t,b) that gradients of parameters and of x are summed and multiplied in:
// within one in the order of time, block by block in the order of the walk, whatever the threads
// and the chunks, which begin with a block. Rows of steps that do not exist (t >= lengths[b]) are
// left out: of those neither x, which may be NaN, nor deltas are read.
#pragma once

#include "cpu/kernels/backward_context.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Blocks of the context's chunk.
template <class F>
FUSEDRNN_INLINE int64_t row_blocks(const BackwardContext<F>& context) {
  return blocks_of(context.chunk.steps(), context.job.block_steps) * context.job.step_blocks;
}

template <class F>
struct BlockRows {
  using Edge = typename F::Edge;
  using Row = typename F::Row;
  using PairUnit = MatrixUnit<Row, Row>;
  // Rows that a product over rows takes together.
  static constexpr int kTogether =
      F::Pair::kDepth > PairUnit::kDepth ? F::Pair::kDepth : PairUnit::kDepth;

  // Block `number` of the chunk, in the order of the walk.
  BlockRows(const BackwardContext<F>& context, int64_t number) {
    const BackwardJob& job = context.job;
    const Chunk& chunk = context.chunk;
    const int64_t B = context.p.B, blocks = row_blocks(context);
    const int64_t in_time = context.p.reverse ? number : blocks - 1 - number;
    const int64_t step = in_time / job.step_blocks * job.block_steps;
    const int64_t row = step * B + in_time % job.step_blocks * job.block_rows;
    const int64_t steps = chunk.steps() - step;
    const int64_t end = (step + (steps < job.block_steps ? steps : job.block_steps)) * B;
    all = {chunk.begin * B + row,
           chunk.begin * B + (end - row < job.block_rows ? end : row + job.block_rows)};
    begins = number == 0 && chunk.first;
    ends = number + 1 == blocks && chunk.last;
    find(context, context.call.flags);
  }

  // Some rows of the chunk, at most kBlockRows: for products that sum nothing over rows.
  BlockRows(const BackwardContext<F>& context, Range rows) : all(rows), begins(false), ends(false) {
    find(context, context.call.flags);
  }

  FUSEDRNN_MEMBER int64_t missing() const { return all.size() - existing_count; }

  Range all;          // of the rows of all steps
  bool begins, ends;  // whether it is the first of all, or the last
  // Groups of kTogether rows, without those of which no row exists.
  int64_t count = 0;
  const Row* deltas[kBlockRows];  // null: the row does not exist
  int64_t places[kBlockRows];     // in memory, counted from the chunk's first row
  const Edge* x[kBlockRows];
  Edge* dx[kBlockRows];
  // The numbers of rows that exist.
  int64_t existing_count = 0;
  uint16_t existing[kBlockRows];

 private:
  FUSEDRNN_ONCE void find(const BackwardContext<F>& context, const uint8_t* flags) {
    const int64_t B = context.p.B;
    const Sequence &x_rows = context.call.x, &dx_rows = context.call.dx;
    const Row* const first_delta = context.delta_at_place(context.chunk.begin, 0);
    int64_t t = all.begin / B, b = all.begin % B;
    for (int64_t group = all.begin; group < all.end; group += kTogether) {
      const int64_t end = all.end - group < kTogether ? all.end : group + kTogether;
      const int64_t first = count, existed = existing_count;
      for (int64_t row = group; row < end; ++row, ++count) {
        const bool exists = is_valid(flags, row);
        const int64_t place = (t - context.chunk.begin) * B + context.job.order.place(b);
        deltas[count] = exists ? first_delta + place * context.job.ld_delta : nullptr;
        places[count] = place;
        x[count] =
            static_cast<const Edge*>(x_rows.data) + t * x_rows.t_stride + b * x_rows.b_stride;
        dx[count] = dx_rows.data == nullptr ? nullptr
                                            : static_cast<Edge*>(dx_rows.data) +
                                                  t * dx_rows.t_stride + b * dx_rows.b_stride;
        existing[existing_count] = static_cast<uint16_t>(count);
        existing_count += exists;
        if (++b == B) b = 0, ++t;
      }
      if (existing_count == existed) count = first;
    }
  }
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
