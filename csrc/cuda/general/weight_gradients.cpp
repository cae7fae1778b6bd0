#include "cuda/general/weight_gradients.h"

#include "cuda/kernels/copy.h"

namespace fusedrnn::cuda {
namespace {

bool is_flat(const Sequence& s, const Problem& p, int64_t n) {
  const auto groups = groups_of(s, p.T, p.B, n);
  return groups && groups->kind == RowGroups::flat;
}

}  // namespace

WeightGradients::WeightGradients(const BackwardCall& call, const States& states, bool padded,
                                 Layout& layout)
    : call_(call),
      p_(call.problem),
      states_(states),
      run_(states.run()),
      unit_(run_.unit),
      padded_(padded),
      stage_x_(padded || unit_.edge != unit_.delta || !is_flat(call.x, p_, p_.I)),
      stage_states_(padded || unit_.row != unit_.delta),
      input_weights_(call.parameters[run_.cell.input.weights], run_.cell.gates * p_.H, p_.I,
                     unit_.edge, unit_.delta, !in_order()) {
  reserve_inputs(layout);
  if (call.dx.data != nullptr) input_weights_.reserve(layout);
  reserve_results(layout);
  if (vectors().count > 0) {
    parts_ = layout.reserve({sum_parts(rows()), run_.delta_columns()}, item_bytes(unit_.real));
  }
}

bool WeightGradients::in_order() const {
  for (int gate = 0; gate < run_.cell.gates; ++gate) {
    if (run_.cell.input_delta[gate] != gate) return false;
  }
  return true;
}

// --- memory ---

// One copy of operands, then the next in its place.
void WeightGradients::reserve_inputs(Layout& layout) {
  int64_t widest = 0;
  if (stage_x_ && wanted(run_.cell.input.weights)) widest = row_stride(p_.I);
  for (const auto& [operand, product] : run_.cell.stages) {
    if (!stage_states_ || operand == cells::Operand::none || !wanted(product.weights)) continue;
    widest = std::max(widest, row_stride(run_.shape(product).depth));
  }
  inputs_ = layout.reserve({rows(), widest}, item_bytes(unit_.delta));
}

bool WeightGradients::writes_edge() const {
  return unit_.edge == unit_.real || unit_.edge == unit_.delta;
}

bool WeightGradients::in_place(int parameter) const {
  const cells::Parameter& matrix = run_.cell.parameters[parameter];
  return writes_edge() &&
         readable(call_.dparameters[parameter], run_.size(matrix.rows), run_.size(matrix.columns));
}

std::optional<RowGroups> WeightGradients::dx_groups() const {
  if (!writes_edge()) return std::nullopt;
  return groups_of(call_.dx, p_.T, p_.B, p_.I);
}

// One result, then the next in its place.
void WeightGradients::reserve_results(Layout& layout) {
  int64_t largest = 0;
  for (int i = 0; i < static_cast<int>(run_.cell.parameters.size()); ++i) {
    const cells::Parameter& parameter = run_.cell.parameters[i];
    if (parameter.columns.letter == 0 || !wanted(i) || in_place(i)) continue;
    largest =
        std::max(largest, run_.size(parameter.rows) * row_stride(run_.size(parameter.columns)));
  }
  if (call_.dx.data != nullptr && !dx_groups()) {
    largest = std::max(largest, rows() * row_stride(p_.I));
  }
  results_ = layout.reserve({largest}, item_bytes(unit_.real));
}

// --- the products ---

void WeightGradients::launch(const Deltas& deltas, const Products& products,
                             cudaStream_t stream) const {
  if (wanted(run_.cell.input.weights)) input_weights(deltas, products, stream);
  for (int stage = 0; stage < run_.stages(); ++stage) {
    const auto& [operand, product] = run_.cell.stages[stage];
    if (operand == cells::Operand::none || !wanted(product.weights)) continue;
    stage_weights(deltas, products, stage, stream);
  }
  vector_gradients(deltas, stream);
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
  if (padded_) copy.flags = states_.flags();
  copy.mask = copy.wanted = kValid;
  copy_rows(copy, dtype, unit_.delta, stream);
  return {copy.to.data, row_stride(n)};
}

// The rows of a product's weights: their gates' deltas stand side by side from `first_delta` on.
void WeightGradients::weights(const Deltas& deltas, const Products& products,
                              const cells::Product& product, int first_delta, const Inputs& inputs,
                              cudaStream_t stream) const {
  const auto [first_row, height, columns] = run_.shape(product);
  const Matrix& dw = call_.dparameters[product.weights];
  const Products::Sizes sizes{height, columns, rows()};
  const Operand a{advance(deltas.data, run_.delta_column(first_delta), item_bytes(unit_.delta)),
                  deltas.ld, true};
  const Operand b{inputs.data, inputs.stride};
  void* const to = advance(dw.data, first_row * dw.stride, item_bytes(unit_.edge));
  if (in_place(product.weights)) {
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
  const CellTable& cell = run_.cell;
  const Inputs x = inputs(call_.x, p_.I, unit_.edge, stage_x_, stream);
  for (int gate = 0, end = 0; gate < cell.gates; gate = end) {
    end = gate + 1;
    while (end < cell.gates && cell.input_delta[end] == cell.input_delta[end - 1] + 1) ++end;
    weights(deltas, products, {cell.input.weights, cell.input.bias, gate, end - gate},
            cell.input_delta[gate], x, stream);
  }
}

// Of what a stage multiplied at all steps.
void WeightGradients::stage_weights(const Deltas& deltas, const Products& products, int stage,
                                    cudaStream_t stream) const {
  const cells::Product& product = run_.cell.stages[stage].product;
  const int64_t depth = run_.shape(product).depth;
  const int64_t step = p_.reverse ? p_.T - 1 : 0;  // that of time 0
  const Sequence multiplied =
      dense_sequence(states_.multiplied(stage, step), p_.B, row_stride(depth));
  weights(deltas, products, product, run_.cell.first_delta[stage],
          inputs(multiplied, depth, unit_.row, stage_states_, stream), stream);
}

void WeightGradients::input_gradient(const Deltas& deltas, const Products& products,
                                     cudaStream_t stream) const {
  // The rows of the weights in the order of the deltas.
  for (int gate = 0; gate < run_.cell.gates; ++gate) {
    input_weights_.copy(memory_, gate * p_.H, run_.cell.input_delta[gate] * p_.H, p_.H, stream);
  }
  const Matrix w = input_weights_.place(memory_);
  const auto groups = dx_groups();
  const RowGroups rows_in =
      dense_groups(groups ? groups->kind : RowGroups::flat, p_.T, p_.B, deltas.ld);
  const Products::Sizes sizes{rows_in.rows, p_.I, run_.cell.gates * p_.H, rows_in.batch};
  const Operand a{deltas.data, rows_in.stride, false, rows_in.batch_stride};
  const Operand b{w.data, w.stride};
  if (groups) {
    products.run(sizes, a, b, {call_.dx.data, groups->stride, groups->batch_stride}, unit_.edge,
                 call_.accumulate_dx);
    return;
  }
  const int64_t ld = row_stride(p_.I);
  products.run(sizes, a, b, {memory_ + results_, ld}, unit_.real);
  Copy copy;
  copy.T = p_.T;
  copy.B = p_.B;
  copy.n = p_.I;
  copy.from = dense_sequence(memory_ + results_, p_.B, ld);
  copy.to = call_.dx;
  copy.accumulate = call_.accumulate_dx;
  copy_rows(copy, unit_.real, unit_.edge, stream);
}

// --- vectors ---

// Those that are wanted.
VectorSums WeightGradients::vectors() const {
  VectorSums v{};
  v.rows = rows();
  v.columns = run_.delta_columns();
  for (int i = 0; i < run_.cell.vector_blocks; ++i) {
    const auto& [parameter, block, delta] = run_.cell.vector_deltas[i];
    if (!wanted(parameter)) continue;
    const int64_t n = run_.size(run_.cell.parameters[parameter].rows.letter);
    void* const to = advance(call_.dparameters[parameter].data, block * n, item_bytes(unit_.edge));
    v.sums[v.count++] = {to, run_.delta_column(delta), n};
  }
  return v;
}

void WeightGradients::vector_gradients(const Deltas& deltas, cudaStream_t stream) const {
  VectorSums sums = vectors();
  if (sums.count == 0) return;
  sums.delta = deltas.data;
  sums.ld_delta = deltas.ld;
  sums.parts = memory_ + parts_;
  sum_vectors(sums, unit_, stream);
}

}  // namespace fusedrnn::cuda
