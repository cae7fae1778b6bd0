#include "cpu/layout.h"

#include <algorithm>
#include <new>

namespace fusedrnn::cpu {

namespace {

size_t size_of(int bytes) { return static_cast<size_t>(bytes); }

// Numbers in all panels of a product with `gates` gates.
size_t packed_count(const CellShape& shape, int64_t H, int64_t depth, int gates) {
  const int64_t units = panels_of(shape, H) * panel_units(shape);
  return count(units * gates, padded_depth(shape, depth));
}

}  // namespace

size_t count(int64_t a, int64_t b, int64_t c) {
  int64_t n = 0;
  if (__builtin_mul_overflow(a, b, &n) || __builtin_mul_overflow(n, c, &n)) throw std::bad_alloc();
  return static_cast<size_t>(n);
}

PackedLayout::PackedLayout(Arena& arena, const CellShape& shape, int64_t I, int64_t H, bool weights)
    : phases_(shape.phases), weights_(weights), input_(0), recurrent_{}, scales_{}, starts_{} {
  if (weights) {
    const size_t item = size_of(shape.panel_bytes);
    input_ = arena.reserve(packed_count(shape, H, I, shape.gates), item);
    for (int i = 0; i < phases_; ++i) {
      recurrent_[i] = arena.reserve(packed_count(shape, H, H, shape.phase_gates[i]), item);
    }
  }
  const size_t biases = count(panels_of(shape, H) * panel_units(shape), shape.gates);
  bias_ih_ = arena.reserve(biases, size_of(shape.real_bytes));
  bias_hh_ = arena.reserve(biases, size_of(shape.real_bytes));
  for (int i = 0; i < 2; ++i) {
    scales_[i] = arena.reserve(shape.quantised ? biases : 0, sizeof(float));
    starts_[i] = arena.reserve(shape.quantised ? biases : 0, sizeof(int32_t));
  }
}

void PackedLayout::point(const Arena& arena, ForwardJob& job) const {
  if (weights_) {
    job.packed_input = arena.at(input_);
    for (int i = 0; i < phases_; ++i) job.packed_recurrent[i] = arena.at(recurrent_[i]);
  }
  job.packed_bias_ih = arena.at(bias_ih_);
  job.packed_bias_hh = arena.at(bias_hh_);
  const auto quantisation = [&](int i) {
    return Quantisation{static_cast<float*>(arena.at(scales_[i])),
                        static_cast<int32_t*>(arena.at(starts_[i]))};
  };
  job.quantised_input = quantisation(0);
  job.quantised_recurrent = quantisation(1);
}

StatesLayout::StatesLayout(Arena& arena, const CellShape& shape, const Problem& p, bool save)
    : phases_(shape.phases), states_(shape.states), mixed_(shape.mixed), input_{}, state_{} {
  const size_t row = count(p.B, row_stride(p.H, shape.row_bytes));
  const int64_t slots = save ? p.T + 1 : 2;
  const int64_t steps = save ? p.T : 1;
  const auto rows = [&](int64_t n) { return count(n, static_cast<int64_t>(row)); };
  for (int i = 0; i < phases_; ++i) {
    const int bytes = shape.quantised ? shape.real_bytes : shape.row_bytes;
    input_[i] = arena.reserve(rows(i == 0 ? slots : steps), size_of(bytes));
  }
  for (int i = mixed_ ? 0 : 1; i < states_; ++i) {
    state_[i] = arena.reserve(rows(slots), size_of(shape.real_bytes));
  }
  // In inference only what phases pass on within a step.
  const bool gates = save || phases_ > 1;
  const size_t saved_row = count(p.B, panels_of(shape, p.H) * shape.saved, panel_units(shape));
  saved_ = gates ? arena.reserve(count(steps, static_cast<int64_t>(saved_row)),
                                 size_of(shape.saved_bytes))
                 : -1;
}

void StatesLayout::point(const Arena& arena, ForwardJob& job) const {
  for (int i = 0; i < phases_; ++i) job.inputs[i] = arena.at(input_[i]);
  job.states[0] = mixed_ ? arena.at(state_[0]) : job.inputs[0];
  for (int i = 1; i < states_; ++i) job.states[i] = arena.at(state_[i]);
  job.saved = saved_ < 0 ? nullptr : arena.at(saved_);
}

ScratchLayout::ScratchLayout(Arena& arena, const CellShape& shape, const Problem& p,
                             const Plan& plan, bool stream)
    : staged_(shape.staged), stream_(stream), ld_staged_(row_stride(p.I, shape.row_bytes)) {
  const auto threads = static_cast<size_t>(plan.threads());
  const int64_t rows = divide_up(p.B, plan.row_groups);
  const int64_t panels = divide_up(panels_of(shape, p.H), plan.unit_groups);
  const size_t line = Arena::kAlignment;
  const auto part = [&](size_t numbers, int bytes) {
    return (numbers * size_of(bytes) + line - 1) / line * line;
  };
  projection_bytes_ = part(count(panels * shape.gates * panel_units(shape), rows, plan.chunk_steps),
                           shape.real_bytes);
  staged_bytes_ = staged_ ? part(count(rows, plan.chunk_steps, ld_staged_), shape.row_bytes) : 0;
  quantised_bytes_ =
      shape.quantised ? part(count(rows, row_stride(p.H, shape.row_bytes)), shape.row_bytes) : 0;
  scales_bytes_ = shape.quantised ? part(count(rows, plan.chunk_steps + 1), sizeof(float)) : 0;
  stream_bytes_ = stream ? part(count(shape.stream_panels * panel_units(shape), shape.gates,
                                      padded_depth(shape, std::max(p.I, p.H))),
                                shape.panel_bytes)
                         : 0;
  projection_piece_ = arena.reserve(threads, projection_bytes_);
  staged_piece_ = arena.reserve(threads, staged_bytes_);
  quantised_piece_ = arena.reserve(threads, quantised_bytes_);
  scales_piece_ = arena.reserve(threads, scales_bytes_);
  stream_piece_ = arena.reserve(threads, stream_bytes_);
}

void ScratchLayout::point(const Arena& arena, ForwardJob& job) const {
  job.ld_staged = ld_staged_;
  job.projection = {arena.at(projection_piece_), projection_bytes_};
  job.staged = {arena.at(staged_piece_), staged_bytes_};
  job.quantised = {arena.at(quantised_piece_), quantised_bytes_};
  job.row_scales = {arena.at(scales_piece_), scales_bytes_};
  job.stream = {stream_ ? arena.at(stream_piece_) : nullptr, stream_bytes_};
}

}  // namespace fusedrnn::cpu
