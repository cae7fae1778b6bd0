// What a thread knows of the walk through time that it is part of, forward or backward.
#pragma once

#include "cpu/kernels/format.h"
#include "cpu/kernels/map_support.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Asks for `bytes` of each of so many rows, which lie `stride` bytes apart; they come while a
// product runs. None are read where `first` is null.
FUSEDRNN_INLINE void fetch_rows(const void* first, int64_t stride, int64_t rows, int64_t bytes) {
  if (first == nullptr) return;
  constexpr int64_t kLineBytes = 64;
  const char* row = static_cast<const char*>(first);
  for (int64_t m = 0; m < rows; ++m, row += stride) {
    for (int64_t at = 0; at < bytes; at += kLineBytes) prefetch_far(row + at);
  }
}

// The same of the caller's, which lie by number.
template <class Number>
struct CallerRows {
  Number* data = nullptr;
  int64_t stride = 0;
  Numbers numbers;

  FUSEDRNN_MEMBER Number* at(int64_t row, int64_t unit) const {
    return data + numbers.of(row) * stride + unit;
  }
};

template <class F, class Job>
struct Context {
  using Edge = typename F::Edge;
  using Real = typename F::Real;
  using Row = typename F::Row;
  using State = typename F::State;
  using V = typename F::V;
  static constexpr int W = V::width;

  // Threads share units out by panels of `panel_size`. `save`: every slot is kept.
  FUSEDRNN_MEMBER Context(const Job& its_job, int thread, int64_t panel_size, bool save)
      : job(its_job),
        shape(*job.shape),
        call(*job.call),
        p(call.problem),
        slots{p.T, p.reverse, save},
        share(job.grid, thread),
        sequences(share.sequences(job.order, p)),
        row_stride(job.ld_state * sequences.step),
        panel_units(panel_size),
        h_panels(share.of_group(blocks_of(p.H, panel_units))),
        p_panels(p.P == p.H ? h_panels : share.of_group(blocks_of(p.P, panel_units))) {}

  // The thread's part of a buffer that all threads share out.
  template <class Number>
  FUSEDRNN_MEMBER Number* part_of(const PerThread& buffer) const {
    return reinterpret_cast<Number*>(static_cast<char*>(buffer.data) + share.thread * buffer.bytes);
  }
  // For all threads, and for those that share its sequences.
  FUSEDRNN_MEMBER void wait_for_all() const {
    if (share.threads > 1) wait_at(*job.grid.all);
  }
  FUSEDRNN_MEMBER void wait_for_group() const {
    if (share.parts > 1) wait_at(*job.grid.group[share.group]);
  }
  // Of a run on other threads at the same time, where there is one.
  FUSEDRNN_MEMBER static void wait_for_other(const Progress* other, int64_t count) {
    if (other != nullptr) wait_for(*other, count);
  }
  FUSEDRNN_MEMBER void report_done(int64_t count) const {
    if (job.links.own != nullptr) report(*job.links.own, share.thread, count);
  }
  // Its panels of units.
  FUSEDRNN_MEMBER Range panels(char units) const { return units == 'P' ? p_panels : h_panels; }

  // The thread's rows of sequences that live at a step, which are the first ones; behind the last
  // step there are none.
  FUSEDRNN_MEMBER Range living(int64_t step) const {
    return {0, step == p.T ? 0 : sequences.living(slots.time(step))};
  }
  // The first of a row's steps, and the one behind its last.
  FUSEDRNN_MEMBER int64_t first_step(int64_t row) const {
    return p.reverse ? p.T - sequences.end(row) : 0;
  }
  FUSEDRNN_MEMBER int64_t end_step(int64_t row) const {
    return p.reverse ? p.T : sequences.end(row);
  }
  // Where the state lies that enters a step, which before a row's first one and behind its last
  // stands still.
  FUSEDRNN_MEMBER int64_t standing_slot(int64_t row, int64_t step) const {
    const int64_t first = first_step(row), end = end_step(row);
    return slots.entering(step < first ? first : step < end ? step : end);
  }

  // Of a step, by row; null: every sequence valid, none cut.
  FUSEDRNN_MEMBER const uint8_t* flags_at(int64_t step) const {
    if (call.flags == nullptr || step == p.T) return nullptr;
    const uint8_t* const flags = job.order.flags == nullptr ? call.flags : job.order.flags;
    return flags + slots.time(step) * p.B + sequences.before;
  }
  // Of the thread's rows, which lie row_stride apart.
  FUSEDRNN_MEMBER int64_t state_offset(int64_t slot, int64_t row) const {
    return (slot * p.B + sequences.place(row)) * job.ld_state;
  }
  FUSEDRNN_MEMBER State* h_row(int64_t slot, int64_t row) const {
    return static_cast<State*>(job.kept.states[0]) + state_offset(slot, row);
  }
  FUSEDRNN_MEMBER Real* state_row(int s, int64_t slot, int64_t row) const {
    return static_cast<Real*>(job.kept.states[s]) + state_offset(slot, row);
  }
  FUSEDRNN_MEMBER V load_state(int s, int64_t slot, int64_t row, int64_t unit) const {
    return s == 0 ? V::load(h_row(slot, row) + unit) : V::load(state_row(s, slot, row) + unit);
  }

  // Whether a stage multiplies w_hh, of which the mask of its operand is.
  FUSEDRNN_MEMBER bool multiplies_recurrent(int stage) const {
    return shape.h_stage >= 0 &&
           shape.stages[stage].product.weights == shape.stages[shape.h_stage].product.weights;
  }
  // A vector times what a mask has for it, zero where that is, whatever it was; null: as it is.
  FUSEDRNN_MEMBER static V times_mask(V v, const Real* mask) {
    if (mask == nullptr) return v;
    const V factor = V::load(mask);
    return select(factor <= V::zero(), V::zero(), v * factor);
  }

  // A mask from a row and unit on; null where none is drawn.
  FUSEDRNN_MEMBER Rows<const Real> mask_rows(const void* mask, int64_t row, int64_t unit) const {
    if (mask == nullptr) return {};
    return {static_cast<const Real*>(mask) + state_offset(0, row) + unit, row_stride};
  }
  // What is the caller's, from a unit on.
  template <class Number>
  FUSEDRNN_MEMBER CallerRows<Number> caller_rows(const Sequence& y, int64_t time,
                                                 int64_t unit) const {
    if (y.data == nullptr) return {};
    Number* const first = static_cast<Number*>(y.data) + time * y.t_stride;
    return {first + sequences.first_number() * y.b_stride + unit, y.b_stride, sequences.numbers()};
  }

  // The same as maps take them, where there is no order.
  template <class Number>
  FUSEDRNN_MEMBER Rows<Number> plain_rows(const Sequence& y, int64_t time, int64_t unit) const {
    if (y.data == nullptr) return {};
    return {static_cast<Number*>(y.data) + time * y.t_stride + sequences.first * y.b_stride + unit,
            y.b_stride};
  }

  // Gates are saved in panels of so many units, so many numbers of a step's row.
  FUSEDRNN_MEMBER int64_t saved_panel() const { return int64_t{shape.unit_vectors} * W; }
  FUSEDRNN_MEMBER int64_t saved_numbers() const { return saved_numbers_; }
  FUSEDRNN_MEMBER int64_t saved_stride() const { return saved_numbers() * sequences.step; }
  FUSEDRNN_MEMBER int64_t saved_offset(int64_t step, int64_t row) const {
    return (step * p.B + sequences.place(row)) * saved_numbers();
  }

  const Job& job;
  const KernelShape& shape;
  const decltype(*Job::call)& call;
  const Problem& p;
  const Slots slots;
  const Share share;
  const Sequences sequences;
  const int64_t row_stride;
  const int64_t panel_units;
  const Range h_panels, p_panels;

 private:
  const int64_t saved_numbers_ = blocks_of(p.H, saved_panel()) * saved_panel() * shape.saved;
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
