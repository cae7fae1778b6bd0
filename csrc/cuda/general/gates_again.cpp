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
  return std::min(GeneralForward::chunk_steps(run, false), steps);
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
  // Steps and times are each other's mirror images in reverse.
  const int64_t first_step = states_.slots().time(first_time), rows = steps * p_.B;
  projection_.run(products, first_time, steps, weights_[run_.cell.input.weights].place(memory_));
  for (int stage = 0; stage < run_.stages(); ++stage) {
    const bool sets_states = run_.cell.units_of_stage(stage) != 'H';
    if (sets_states && !run_.multiplies_passed(stage + 1)) continue;  // it has no gates
    multiply(products, stage, first_step, rows);
    const ForwardStep step = arguments(stage, first_step, first_time, rows);
    norm_statistics_of(run_, stage, step, products.stream);
    run_.kernels.forward[stage](step, p_.constants, products.stream);
    if (!run_.masks_operand(true)) continue;
    if (!run_.multiplies_passed(stage + 1) || !run_.multiplies_recurrent(stage + 1)) continue;
    const int64_t n = run_.units(stage);
    noise_.mask_operand(step.passed, run_.types.row, step.passed, run_.types.row, n, row_stride(n),
                        products.stream, steps);
  }
}

void GatesAgain::multiply(const Products& products, int stage, int64_t first_step,
                          int64_t rows) const {
  const auto& [operand, product] = run_.cell.stages[stage];
  if (operand == cells::Operand::none) return;
  multiply_rows(products, run_.shape(product), rows, states_.multiplied(stage, first_step),
                weights_[product.weights].place(memory_), {u_.at(memory_, 0), u_.ld}, run_.types);
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
  s.statistics = states_.statistics(0);
  s.ld_statistics = states_.ld_statistics();
  s.gates = states_.gates(0);
  s.extra = states_.extra(0);
  s.keep = true;
  for (int i = 0; i < run_.states(); ++i) {
    s.entering[i] = states_.state(i, states_.slots().entering(first_step));
  }
  if (run_.multiplies_passed(stage + 1)) s.passed = states_.passed(stage + 1, first_step);
  s.noise = noise_.of_gates(first_time);
  if (states_.flags() != nullptr) s.flags = states_.flags() + first_time * p_.B;
  return s;
}

}  // namespace fusedrnn::cuda
