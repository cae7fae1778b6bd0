#include "cuda/general/weight_gradients.h"

namespace fusedrnn::cuda {
namespace {

bool is_flat(const Sequence& s, const Problem& p, int64_t n) {
  const auto groups = groups_of(s, p.T, p.B, n);
  return groups && groups->kind == RowGroups::flat;
}

}  // namespace

WeightGradients::WeightGradients(const BackwardCall& call, const States& states,
                                 int64_t chunk_steps, bool padded, Layout& layout)
    : call_(call),
      p_(call.problem),
      states_(states),
      run_(states.run()),
      types_(run_.types),
      chunk_steps_(chunk_steps),
      padded_(padded),
      stage_x_(padded || types_.edge != types_.delta || !is_flat(call.x, p_, p_.I)),
      stage_states_(padded || types_.row != types_.delta),
      input_weights_(call.parameters[run_.cell.input.weights], run_.cell.gates * p_.H, p_.I,
                     types_.edge, types_.delta, !in_order()),
      vectors_(vectors()) {
  reserve_inputs(layout);
  if (call.dx.data != nullptr) input_weights_.reserve(layout);
  reserve_results(layout);
  if (!vectors_.empty()) {
    const int64_t chunks = (p_.T + chunk_steps - 1) / chunk_steps;
    parts_ = layout.reserve({chunks, most_sum_parts(rows()), run_.delta_columns()},
                            item_bytes(types_.real));
  }
}

bool WeightGradients::in_order() const {
  for (int gate = 0; gate < run_.cell.gates; ++gate) {
    if (run_.cell.input_delta(gate) != gate) return false;
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
    widest = std::max(widest, row_stride(run_.shape(product).width()));
  }
  inputs_ = layout.reserve({rows(), widest}, item_bytes(types_.delta));
}

bool WeightGradients::writes_edge() const {
  return types_.edge == types_.real || types_.edge == types_.delta;
}

bool WeightGradients::in_place(int parameter) const {
  const auto [rows, columns] = run_.parameter_shape(parameter);
  // Sums of several chunks would be rounded in between.
  const bool gathers = several() && types_.edge != types_.real;
  return writes_edge() && !gathers && readable(call_.dparameters[parameter], rows, columns);
}

std::optional<RowGroups> WeightGradients::dx_groups() const {
  // What is added to may not meet the product of steps that do not exist: a weight may be NaN.
  if (!writes_edge() || (padded_ && call_.accumulate_dx)) return std::nullopt;
  if (states_.order().any()) return std::nullopt;  // rows by place
  return groups_of(call_.dx, p_.T, p_.B, p_.I);
}

// One result, then the next in its place.
void WeightGradients::reserve_results(Layout& layout) {
  int64_t largest = 0;
  for (int i = 0; i < run_.parameters(); ++i) {
    if (!run_.is_matrix(i) || !wanted(i) || in_place(i)) continue;
    const auto [rows, columns] = run_.parameter_shape(i);
    if (several()) {
      totals_[i] = {layout, 1, rows, columns, types_.real};
    } else {
      largest = std::max(largest, rows * row_stride(columns));
    }
  }
  if (call_.dx.data != nullptr && !dx_groups()) {
    largest = std::max(largest, rows() * row_stride(p_.I));
  }
  results_ = layout.reserve({largest}, item_bytes(types_.real));
}

// --- the products ---

void WeightGradients::add(const Deltas& deltas, const Chunk& chunk,
                          const Products& products) const {
  if (wanted(run_.cell.input.weights)) input_weights(deltas, chunk, products);
  for (int stage = 0; stage < run_.stages(); ++stage) {
    const auto& [operand, product] = run_.cell.stages[stage];
    if (operand == cells::Operand::none || !wanted(product.weights)) continue;
    stage_weights(deltas, chunk, products, stage);
  }
  if (!vectors_.empty()) vector_gradients(deltas, chunk, products);
  if (call_.dx.data != nullptr) input_gradient(deltas, chunk, products);
}

// The parts of all chunks, in the order of time, of which the last may have fewer.
void WeightGradients::vector_gradients(const Deltas& deltas, const Chunk& chunk,
                                       const Products& products) const {
  const int64_t columns = run_.delta_columns();
  sum_into_parts(deltas, advance(memory_ + parts_, parts_before(chunk.time) * columns, types_.real),
                 types_, products.stream);
  if (!chunk.last) return;
  sum_vectors(parts_before(states_.order().end()), columns, memory_ + parts_, vectors_, types_,
              products.stream);
}

// Of the chunks before one that begins at a time, or before the end.
int64_t WeightGradients::parts_before(int64_t time) const {
  int64_t parts = 0;
  for (int64_t begin = 0; begin < time; begin += chunk_steps_) {
    parts += sum_parts(states_.order().rows(begin, std::min(chunk_steps_, time - begin)));
  }
  return parts;
}

Matrix WeightGradients::inputs(const Sequence& rows, Rows place, const Chunk& chunk, int64_t n,
                               Dtype dtype, bool staged, cudaStream_t stream) const {
  if (!staged) return {rows.data, groups_of(rows, p_.T, p_.B, n)->stride};
  Copy copy;
  copy.T = chunk.steps;
  copy.B = p_.B;
  copy.n = n;
  copy.from = rows;
  copy.from_rows = place;
  copy.to = dense_sequence(memory_ + inputs_, p_.B, row_stride(n));
  copy.to_rows = Rows::packed;
  copy.order = states_.device_order(chunk.time);
  copy.only_living = states_.order().any();
  if (padded_) copy.flags = states_.flags() + chunk.time * p_.B;
  copy.mask = copy.wanted = kValid;
  copy_rows(copy, dtype, types_.delta, stream);
  return {copy.to.data, row_stride(n)};
}

// The rows of a product's weights: their gates' deltas stand side by side from `first_delta` on.
void WeightGradients::weights(const Deltas& deltas, const Chunk& chunk, const Products& products,
                              const cells::Product& product, int first_delta,
                              const Matrix& inputs) const {
  const Run::ProductShape shape = run_.shape(product);
  const Matrix& dw = call_.dparameters[product.weights];
  const int64_t height = shape.head_rows(), columns = shape.depth;
  const Products::Sizes sizes{height, columns, deltas.rows, shape.heads};
  const Operand b{inputs.data, inputs.stride, false, shape.to_next_head(columns)};
  void* const to = advance(dw.data, shape.first_row * dw.stride, types_.edge);
  const auto multiply_into = [&](void* result, int64_t ld, Dtype dtype) {
    for (int64_t part = 0; part < shape.parts; ++part) {
      const int64_t row = part * shape.part_rows();
      const int64_t column = run_.delta_column(first_delta) + row;
      products.run(
          sizes,
          {advance(deltas.data, column, types_.delta), deltas.ld, true, shape.to_next_head(height)},
          b, {advance(result, row * ld, dtype), ld, shape.to_next_head(height * ld)}, dtype,
          !chunk.first);
    }
  };
  if (in_place(product.weights)) {
    multiply_into(to, shape.rows == 1 ? columns : dw.stride, types_.edge);
    return;
  }
  const int64_t ld = row_stride(columns);
  void* const sums =
      several() ? totals_[product.weights].at(memory_, shape.first_row) : memory_ + results_;
  multiply_into(sums, ld, types_.real);
  if (!chunk.last) return;
  copy_matrix({sums, ld}, types_.real, {to, dw.stride}, types_.edge, shape.rows, columns,
              products.stream);
}

// One product for each run of gates whose deltas stand in their order.
void WeightGradients::input_weights(const Deltas& deltas, const Chunk& chunk,
                                    const Products& products) const {
  const CellTable& cell = run_.cell;
  Sequence its_x = call_.x;
  its_x.data = advance(its_x.data, chunk.time * its_x.t_stride, types_.edge);
  const Matrix x =
      inputs(its_x, Rows::numbers, chunk, p_.I, types_.edge, stage_x_, products.stream);
  for (int gate = 0, end = 0; gate < cell.gates; gate = end) {
    end = gate + 1;
    while (end < cell.gates && cell.input_delta(end) == cell.input_delta(end - 1) + 1) ++end;
    weights(deltas, chunk, products, {cell.input.weights, cell.input.bias, gate, end - gate},
            cell.input_delta(gate), x);
  }
}

// Of what a stage multiplied.
void WeightGradients::stage_weights(const Deltas& deltas, const Chunk& chunk,
                                    const Products& products, int stage) const {
  const cells::Product& product = run_.cell.stages[stage].product;
  const int64_t width = run_.shape(product).width();
  const int64_t step = states_.slots().time(chunk.time);  // time and step mirror each other
  const Sequence multiplied =
      dense_sequence(states_.multiplied(stage, step), p_.B, row_stride(width));
  const bool packed = run_.multiplies_passed(stage) && states_.packs();
  weights(deltas, chunk, products, product, run_.cell.first_delta(stage),
          inputs(multiplied, packed ? Rows::packed : Rows::places, chunk, width, types_.row,
                 stage_states_, products.stream));
}

void WeightGradients::input_gradient(const Deltas& deltas, const Chunk& chunk,
                                     const Products& products) const {
  // The rows of the weights in the order of the deltas.
  for (int gate = 0; gate < run_.cell.gates && chunk.first; ++gate) {
    input_weights_.copy(memory_, gate * p_.H, run_.cell.input_delta(gate) * p_.H, p_.H,
                        products.stream);
  }
  const Matrix w = input_weights_.place(memory_);
  const auto groups = dx_groups();
  RowGroups rows_in =
      dense_groups(groups ? groups->kind : RowGroups::flat, chunk.steps, p_.B, deltas.ld);
  if (rows_in.batch == 1) rows_in.rows = deltas.rows;
  const Products::Sizes sizes{rows_in.rows, p_.I, run_.cell.gates * p_.H, rows_in.batch};
  const Operand a{deltas.data, rows_in.stride, false, rows_in.batch_stride};
  const Operand b{w.data, w.stride};
  Copy copy;
  // Behind the last chunk there may be times at which nothing lives.
  const bool reaches_end = chunk.time + chunk.steps == states_.order().end();
  copy.T = reaches_end ? p_.T - chunk.time : chunk.steps;
  copy.B = p_.B;
  copy.n = p_.I;
  copy.order = states_.device_order(chunk.time);
  copy.to = call_.dx;
  copy.to_rows = Rows::numbers;
  copy.to.data = advance(copy.to.data, chunk.time * copy.to.t_stride, types_.edge);
  if (padded_) copy.flags = states_.flags() + chunk.time * p_.B;
  copy.mask = copy.wanted = kValid;
  if (groups) {
    products.run(sizes, a, b, {copy.to.data, groups->stride, groups->batch_stride}, types_.edge,
                 call_.accumulate_dx);
    if (padded_) clear_rows(copy, types_.edge, products.stream);
    return;
  }
  const int64_t ld = row_stride(p_.I);
  products.run(sizes, a, b, {memory_ + results_, ld}, types_.real);
  copy.from = dense_sequence(memory_ + results_, p_.B, ld);
  copy.from_rows = Rows::packed;
  copy.accumulate = call_.accumulate_dx;
  copy_rows(copy, types_.real, types_.edge, products.stream);
}

// --- vectors ---

// Those that are wanted, block by block.
std::vector<VectorSum> WeightGradients::vectors() const {
  std::vector<VectorSum> sums;
  int k = 0;  // counts the blocks of those that are no biases
  for (int i = 0; i < run_.parameters(); ++i) {
    if (run_.is_matrix(i)) continue;
    const auto [letter, blocks] = run_.cell.parameters[i].rows;
    const int64_t n = run_.size(letter);
    for (int block = 0; block < blocks; ++block) {
      const int bias = run_.bias_delta(i, block);
      const int delta = bias >= 0 ? bias : run_.cell.vector_delta(k++);
      if (!wanted(i)) continue;
      void* const to = advance(call_.dparameters[i].data, block * n, types_.edge);
      sums.push_back({to, run_.delta_column(delta), n});
    }
  }
  return sums;
}

}  // namespace fusedrnn::cuda
