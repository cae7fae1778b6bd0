// What a thread knows of the walk through time that it is part of, forward or backward.
#pragma once

#include "cpu/kernels/format.h"
#include "cpu/kernels/map_support.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

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
        share(job.grid, p.B, thread),
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
  // Its panels of units.
  FUSEDRNN_MEMBER Range panels(char units) const { return units == 'P' ? p_panels : h_panels; }

  // Of a step, by sequence; null: every sequence valid, none cut.
  FUSEDRNN_MEMBER const uint8_t* flags_at(int64_t step) const {
    return call.flags == nullptr || step == p.T ? nullptr : call.flags + slots.time(step) * p.B;
  }
  FUSEDRNN_MEMBER int64_t state_offset(int64_t slot, int64_t b) const {
    return (slot * p.B + b) * job.ld_state;
  }
  FUSEDRNN_MEMBER State* h_row(int64_t slot, int64_t b) const {
    return static_cast<State*>(job.kept.states[0]) + state_offset(slot, b);
  }
  FUSEDRNN_MEMBER Real* state_row(int s, int64_t slot, int64_t b) const {
    return static_cast<Real*>(job.kept.states[s]) + state_offset(slot, b);
  }
  FUSEDRNN_MEMBER V load_state(int s, int64_t slot, int64_t b, int64_t unit) const {
    return s == 0 ? V::load(h_row(slot, b) + unit) : V::load(state_row(s, slot, b) + unit);
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

  // A mask from a sequence and unit on; null where none is drawn.
  FUSEDRNN_MEMBER Rows<const Real> mask_rows(const void* mask, int64_t row, int64_t unit) const {
    if (mask == nullptr) return {};
    return {static_cast<const Real*>(mask) + row * job.ld_state + unit, job.ld_state};
  }

  // Gates are saved in panels of so many units, so many numbers of a step's sequence.
  FUSEDRNN_MEMBER int64_t saved_panel() const { return int64_t{shape.unit_vectors} * W; }
  FUSEDRNN_MEMBER int64_t saved_numbers() const { return saved_numbers_; }

  const Job& job;
  const KernelShape& shape;
  const decltype(*Job::call)& call;
  const Problem& p;
  const Slots slots;
  const Share share;
  const int64_t panel_units;
  const Range h_panels, p_panels;

 private:
  const int64_t saved_numbers_ = blocks_of(p.H, saved_panel()) * saved_panel() * shape.saved;
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
