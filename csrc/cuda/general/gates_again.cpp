#include "cuda/general/gates_again.h"

#include <algorithm>

#include "cuda/general/forward.h"
#include "cuda/general/norms.h"

namespace fusedrnn::cuda {
namespace {

// As few rows (t,b) as products need to be efficient.
constexpr int64_t kChunkRows = 4096;

}  // namespace

int64_t GatesAgain::chunk_steps(const Run& run) {
  const Problem& p = run.problem;
  if (!p.lean) return p.T;
  const int64_t steps = std::max<int64_t>(kChunkRows / p.B, 1);
  return std::min(GeneralForward::chunk_steps(run), steps);
}

GatesAgain::GatesAgain(const BackwardCall& call, const States& states, const NoiseMasks& noise,
                       int64_t chunk_steps, Layout& layout)
    : call_(call),
      p_(call.problem),
      states_(states),
      noise_(noise),
      run_(states.run()),
      projection_(call.x, states, chunk_steps, layout) {
  int64_t widest = 0;
  for (const cells::Stage& stage : run_.cell.stages) {
    if (stage.operand == cells::Operand::none) continue;
    widest = std::max(widest, run_.shape(stage.product).rows);
  }
  u_ = {layout, chunk_steps, p_.B, widest, run_.types.real};
  if (run_.passes_rows()) row_ = {layout, chunk_steps, p_.B, p_.H, run_.types.real};
  for (int i = 0; i < run_.parameters(); ++i) {
    if (!run_.is_matrix(i)) continue;
    const auto [rows, columns] = run_.parameter_shape(i);
    weights_[i] = {call.parameters[i], rows, columns, run_.types.edge, run_.types.row};
    weights_[i].reserve(layout);
  }
}

void GatesAgain::begin(const Products& products) const {
  for (const StagedMatrix& weights : weights_) weights.copy(memory_, products.stream);
}

void GatesAgain::run(const Products& products, int64_t first_time, int64_t steps) const {
  // Steps and times are each other's mirror images in reverse. Of the last time only the rows that
  // may live are looked at: as many as of the first.
  const int64_t living = states_.order().living(first_time);
  const int64_t first_step = states_.slots().time(first_time);
  const int64_t rows = (steps - 1) * p_.B + living;
  projection_.run(products, first_time, steps, weights_[run_.cell.input.weights].place(memory_));
  for (int stage = 0; stage < run_.stages(); ++stage) {
    const bool sets_states = run_.cell.units_of_stage(stage) != 'H';
    if (sets_states && !run_.multiplies_passed(stage + 1)) continue;  // it has no gates
    multiply(products, stage, first_step, steps, living);
    const ForwardStep step = arguments(stage, first_step, first_time, rows);
    norm_statistics_of(run_, stage, step, products.stream);
    run_.kernels.forward[stage](step, p_.constants, products.stream);
    if (!run_.masks_operand(true)) continue;
    if (!run_.multiplies_passed(stage + 1) || !run_.multiplies_recurrent(stage + 1)) continue;
    Copy copy;
    copy.T = steps;
    copy.B = living;
    copy.n = run_.units(stage);
    copy.order = states_.device_order(first_time);
    noise_.mask_operand(step.passed, run_.types.row, step.passed, run_.types.row,
                        row_stride(copy.n), copy, products.stream);
  }
}

void GatesAgain::multiply(const Products& products, int stage, int64_t first_step, int64_t steps,
                          int64_t living) const {
  const auto& [operand, product] = run_.cell.stages[stage];
  if (operand == cells::Operand::none) return;
  const Run::ProductShape shape = run_.shape(product);
  const void* const multiplied = states_.multiplied(stage, first_step);
  const Matrix w = weights_[product.weights].place(memory_), u{u_.at(memory_, 0), u_.ld};
  if (living == p_.B || shape.heads > 1) {
    const int64_t rows = (steps - 1) * p_.B + living;
    return multiply_rows(products, shape, rows, multiplied, w, u, run_.types);
  }
  const int64_t ld = row_stride(shape.width());
  products.run({living, shape.rows, shape.depth, steps}, {multiplied, ld, false, p_.B * ld},
               {advance(w.data, shape.first_row * w.stride, run_.types.row), w.stride, true, 0},
               {u.data, u.stride, p_.B * u.stride}, run_.types.real);
}

ForwardStep GatesAgain::arguments(int stage, int64_t first_step, int64_t first_time,
                                  int64_t rows) const {
  ForwardStep s{};
  s.B = rows;
  s.N = run_.units(stage);
  s.ld = row_stride(s.N);
  s.ld_gates = states_.ld_gates();
  s.ld_extra = states_.ld_extra();
  for (int i = 0; i < kMaxParameters; ++i) s.parameters[i] = call_.parameters[i].data;
  const Piece& product = run_.reads_row(stage) ? row_ : u_;
  s.u = product.at(memory_, 0);
  s.ld_u = product.ld;
  if (run_.reads_row(stage + 1)) s.passed_row = row_.at(memory_, 0);
  s.statistics = states_.statistics(first_time);
  s.ld_statistics = states_.ld_statistics();
  s.gates = states_.gates(first_time);
  s.extra = states_.extra(first_time);
  s.keep = true;
  for (int i = 0; i < run_.states(); ++i) {
    s.entering[i] = states_.state(i, states_.slots().entering(first_step));
  }
  if (run_.multiplies_passed(stage + 1)) s.passed = states_.passed(stage + 1, first_step);
  s.numbers = states_.device_order().numbers;
  s.batch = p_.B;
  s.noise = noise_.of_gates(first_time);
  if (states_.flags() != nullptr) s.flags = states_.flags() + first_time * p_.B;
  return s;
}

}  // namespace fusedrnn::cuda
