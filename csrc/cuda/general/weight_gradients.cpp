#include "cuda/general/weight_gradients.h"

#include "cuda/kernels/bias.h"
#include "cuda/kernels/copy.h"

namespace fusedrnn::cuda {
namespace {

bool is_flat(const Sequence& s, const Problem& p, int64_t n) {
  const auto groups = groups_of(s, p.T, p.B, n);
  return groups && groups->kind == RowGroups::flat;
}

}  // namespace

WeightGradients::WeightGradients(const BackwardCall& call, const States& states,
                                 const uint8_t* flags, bool padded, Layout& layout)
    : call_(call),
      p_(call.problem),
      states_(states),
      cell_(states.cell()),
      unit_(states.unit()),
      flags_(flags),
      padded_(padded),
      stage_x_(padded || unit_.edge != unit_.delta || !is_flat(call.x, p_, p_.I)),
      stage_states_(padded || unit_.row != unit_.delta),
      w_ih_(call.w_ih, cell_.gates * p_.H, p_.I, unit_.edge, unit_.delta, !in_order()) {
  reserve_inputs(layout);
  if (call.dx.data != nullptr) w_ih_.reserve(layout);
  reserve_results(layout);
  if (call.db_ih != nullptr || call.db_hh != nullptr) {
    bias_parts_ = layout.reserve({bias_parts(rows()), cell_.deltas * p_.H}, item_bytes(unit_.real));
  }
}

bool WeightGradients::in_order() const {
  for (int gate = 0; gate < cell_.gates; ++gate) {
    if (cell_.input_delta[gate] != gate) return false;
  }
  return true;
}

// --- memory ---

// One copy of operands, then the next in its place.
void WeightGradients::reserve_inputs(Layout& layout) {
  int64_t widest = 0;
  if (stage_x_ && call_.dw_ih.data != nullptr) widest = row_stride(p_.I);
  if (stage_states_ && call_.dw_hh.data != nullptr) {
    widest = std::max(widest, row_stride(p_.H));
  }
  inputs_ = layout.reserve({rows(), widest}, item_bytes(unit_.delta));
}

bool WeightGradients::writes_edge() const {
  return unit_.edge == unit_.real || unit_.edge == unit_.delta;
}

bool WeightGradients::in_place(const Matrix& dw, int64_t columns) const {
  return writes_edge() && readable(dw, cell_.gates * p_.H, columns);
}

std::optional<RowGroups> WeightGradients::dx_groups() const {
  // What is added to may not meet the product of steps that do not exist: a weight may be NaN.
  if (!writes_edge() || (padded_ && call_.accumulate_dx)) return std::nullopt;
  return groups_of(call_.dx, p_.T, p_.B, p_.I);
}

// One result, then the next in its place.
void WeightGradients::reserve_results(Layout& layout) {
  int64_t largest = 0;
  const auto add = [&](const Matrix& dw, int64_t columns) {
    if (dw.data == nullptr || in_place(dw, columns)) return;
    largest = std::max(largest, cell_.gates * p_.H * row_stride(columns));
  };
  add(call_.dw_ih, p_.I);
  add(call_.dw_hh, p_.H);
  if (call_.dx.data != nullptr && !dx_groups()) {
    largest = std::max(largest, rows() * row_stride(p_.I));
  }
  results_ = layout.reserve({largest}, item_bytes(unit_.real));
}

// --- the products ---

void WeightGradients::launch(const Deltas& deltas, const Products& products,
                             cudaStream_t stream) const {
  if (call_.dw_ih.data != nullptr) input_weights(deltas, products, stream);
  if (call_.dw_hh.data != nullptr) recurrent_weights(deltas, products, stream);
  if (call_.db_ih != nullptr || call_.db_hh != nullptr) biases(deltas, stream);
  if (call_.dx.data != nullptr) input_gradient(deltas, products, stream);
}

WeightGradients::Inputs WeightGradients::inputs(const Sequence& rows, int64_t n, Dtype dtype,
                                                bool staged, cudaStream_t stream) const {
  if (!staged) return {rows.data, groups_of(rows, p_.T, p_.B, n)->stride};
  Copy copy;
  copy.T = p_.T;
  copy.B = p_.B;
  copy.n = n;
  copy.from = rows;
  copy.to = dense_sequence(memory_ + inputs_, p_.B, row_stride(n));
  if (padded_) copy.flags = flags_;
  copy.mask = copy.wanted = kValid;
  copy_rows(copy, dtype, unit_.delta, stream);
  return {copy.to.data, row_stride(n)};
}

// dw of `gates` gates, whose deltas stand side by side from `first_block` on.
void WeightGradients::weights(const Deltas& deltas, const Products& products, int first_gate,
                              int gates, int first_block, const Inputs& inputs, int64_t columns,
                              const Matrix& dw, cudaStream_t stream) const {
  const int64_t row = first_gate * p_.H, height = gates * p_.H;
  const Products::Sizes sizes{height, columns, rows()};
  const Operand a{advance(deltas.data, first_block * p_.H, item_bytes(unit_.delta)), deltas.ld,
                  true};
  const Operand b{inputs.data, inputs.stride};
  void* const to = advance(dw.data, row * dw.stride, item_bytes(unit_.edge));
  if (in_place(dw, columns)) {
    products.run(sizes, a, b, {to, height == 1 ? columns : dw.stride}, unit_.edge);
    return;
  }
  const int64_t ld = row_stride(columns);
  products.run(sizes, a, b, {memory_ + results_, ld}, unit_.real);
  Copy copy;
  copy.B = height;
  copy.n = columns;
  copy.from = {memory_ + results_, 0, ld};
  copy.to = {to, 0, dw.stride};
  copy_rows(copy, unit_.real, unit_.edge, stream);
}

// One product for each run of gates whose deltas stand in their order.
void WeightGradients::input_weights(const Deltas& deltas, const Products& products,
                                    cudaStream_t stream) const {
  const Inputs x = inputs(call_.x, p_.I, unit_.edge, stage_x_, stream);
  for (int gate = 0, end = 0; gate < cell_.gates; gate = end) {
    end = gate + 1;
    while (end < cell_.gates && cell_.input_delta[end] == cell_.input_delta[end - 1] + 1) ++end;
    weights(deltas, products, gate, end - gate, cell_.input_delta[gate], x, p_.I, call_.dw_ih,
            stream);
  }
}

// One product a phase, with what the phase multiplied.
void WeightGradients::recurrent_weights(const Deltas& deltas, const Products& products,
                                        cudaStream_t stream) const {
  for (int phase = 0; phase < cell_.phases; ++phase) {
    const int64_t slot = phase == 0 && p_.reverse ? 1 : 0;  // that which enters the step of time 0
    const Sequence multiplied =
        dense_sequence(states_.input_slot(phase, slot), p_.B, states_.ld_state());
    const int first = cell_.phase_first[phase];
    weights(deltas, products, first, cell_.phase_gates[phase], cell_.recurrent_delta[first],
            inputs(multiplied, p_.H, unit_.row, stage_states_, stream), p_.H, call_.dw_hh, stream);
  }
}

void WeightGradients::input_gradient(const Deltas& deltas, const Products& products,
                                     cudaStream_t stream) const {
  // The rows of W_ih in the order of the deltas.
  for (int gate = 0; gate < cell_.gates; ++gate) {
    w_ih_.copy(memory_, gate * p_.H, cell_.input_delta[gate] * p_.H, p_.H, stream);
  }
  const Matrix w = w_ih_.place(memory_);
  const auto groups = dx_groups();
  const RowGroups rows_in =
      dense_groups(groups ? groups->kind : RowGroups::flat, p_.T, p_.B, deltas.ld);
  const Products::Sizes sizes{rows_in.rows, p_.I, cell_.gates * p_.H, rows_in.batch};
  const Operand a{deltas.data, rows_in.stride, false, rows_in.batch_stride};
  const Operand b{w.data, w.stride};
  Copy copy;
  copy.T = p_.T;
  copy.B = p_.B;
  copy.n = p_.I;
  copy.to = call_.dx;
  if (padded_) copy.flags = flags_;
  copy.mask = copy.wanted = kValid;
  if (groups) {
    products.run(sizes, a, b, {call_.dx.data, groups->stride, groups->batch_stride}, unit_.edge,
                 call_.accumulate_dx);
    if (padded_) clear_rows(copy, unit_.edge, stream);
    return;
  }
  const int64_t ld = row_stride(p_.I);
  products.run(sizes, a, b, {memory_ + results_, ld}, unit_.real);
  copy.from = dense_sequence(memory_ + results_, p_.B, ld);
  copy.accumulate = call_.accumulate_dx;
  copy_rows(copy, unit_.real, unit_.edge, stream);
}

void WeightGradients::biases(const Deltas& deltas, cudaStream_t stream) const {
  BiasGradients gradients{};
  gradients.rows = rows();
  gradients.H = p_.H;
  gradients.delta = deltas.data;
  gradients.ld_delta = deltas.ld;
  gradients.parts = memory_ + bias_parts_;
  gradients.db_ih = call_.db_ih;
  gradients.db_hh = call_.db_hh;
  gradients.cell = cell_;
  bias_gradients(gradients, unit_, stream);
}

}  // namespace fusedrnn::cuda
