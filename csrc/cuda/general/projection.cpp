#include "cuda/general/projection.h"

#include "cuda/kernels/copy.h"

namespace fusedrnn::cuda {

InputProjection::InputProjection(const Sequence& x, const States& states, int64_t chunk_steps,
                                 Layout& layout)
    : x_(x),
      states_(states),
      staged_(states.order().any() || states.run().types.edge != states.run().types.row ||
              !groups_of(x, chunk_steps, states.run().problem.B, states.run().problem.I)) {
  const Problem& p = states.run().problem;
  if (staged_) copy_ = {layout, chunk_steps, p.B, p.I, states.run().types.row};
}

void InputProjection::run(const Products& products, int64_t first_time, int64_t steps,
                          const Matrix& w) const {
  const Types& types = states_.run().types;
  const Problem& p = states_.run().problem;
  const int64_t gates = states_.run().cell.gates * p.H;
  const Order& order = states_.order();
  const int64_t living = order.living(first_time);  // the most of these steps
  Sequence x = x_;
  x.data = advance(x.data, first_time * x.t_stride, types.edge);
  RowGroups groups = dense_groups(RowGroups::flat, steps, p.B, copy_.ld);
  if (staged_) {
    Copy copy;
    copy.T = steps;
    copy.B = living;
    copy.n = p.I;
    copy.from = x;
    copy.from_rows = Rows::numbers;
    copy.to = dense_sequence(copy_.at(memory_, 0), p.B, copy_.ld);
    copy.order = states_.device_order(first_time);
    if (order.any() && states_.packs()) {
      copy.to_rows = Rows::packed;
      copy.only_living = true;
      groups.rows = order.rows(first_time, steps);
    } else if (living < p.B) {
      groups = {RowGroups::by_step, living, copy_.ld, steps, p.B * copy_.ld};
    }
    copy_rows(copy, types.edge, types.row, products.stream);
    x = copy.to;
  } else {
    groups = *groups_of(x, steps, p.B, p.I);  // of fewer steps where it is of a whole chunk
  }
  const RowGroups out = dense_groups(groups.kind, steps, p.B, states_.ld_gates());
  products.run({groups.rows, gates, p.I, groups.batch},
               {x.data, groups.stride, false, groups.batch_stride}, {w.data, w.stride, true, 0},
               {states_.gates(first_time), out.stride, out.batch_stride}, types.real);
}

}  // namespace fusedrnn::cuda
