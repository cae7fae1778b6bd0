// Dropout of a row between layers, of weights, or of their gradients; and the masks of a walk.
#pragma once

#include "core/problem.h"
#include "cpu/kernels/context.h"
#include "cpu/kernels/row_kernels.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// A mask of a state's size, of the thread's own units.
template <class Context>
FUSEDRNN_ONCE void begin_own_mask(const Context& context, int64_t row, double rate, bool stays,
                                  char size, void* masks, OwnMask<typename Context::Real>& own) {
  using Real = typename Context::Real;
  const Range panels = context.panels(size);
  const int64_t all = extent(context.p, size), end = panels.end * context.panel_units;
  own.masks = static_cast<Real*>(masks);
  own.begin = panels.begin * context.panel_units;
  own.end = end < all ? end : all;
  row_kernels<Real>().begin_mask(context.p.noise.seed, row, rate, stays, own.values);
}

// Some masks at places of which each comes by itself.
template <class Real>
class PlacesOf {
 public:
  FUSEDRNN_MEMBER PlacesOf(const OwnMask<Real>* masks, int count) : masks_(masks), count_(count) {}

  FUSEDRNN_MEMBER void add(const Place& place) {
    places_[number_++] = place;
    if (number_ == kPlacesTogether) draw_all();
  }
  // Those that are left.
  FUSEDRNN_MEMBER void draw_all() {
    for (int i = 0; i < count_ && number_ > 0; ++i) {
      row_kernels<Real>().draw_own(masks_[i], places_, number_);
    }
    number_ = 0;
  }

 private:
  const OwnMask<Real>* masks_;
  int count_;
  int64_t number_ = 0;
  Place places_[kPlacesTogether];
};

// That of what w_hh multiplies, of all steps.
template <class Context>
FUSEDRNN_ONCE void draw_operand_mask(const Context& context) {
  using Real = typename Context::Real;
  const Noise& noise = context.p.noise;
  if (!noise.training || noise.state == 0) return;
  OwnMask<Real> mask;
  begin_own_mask(context, cells::row_of_mask(cells::Mask::state, noise.run), noise.state, false,
                 context.shape.states[0].size, context.job.noise.operand, mask);
  PlacesOf<Real> places(&mask, 1);
  for (int64_t row = 0; row < context.sequences.count; ++row) {
    places.add({0, context.sequences.number(row), context.state_offset(0, row)});
  }
  places.draw_all();
}

// Those of each step of a walk, found once for it: small steps notice it. They are drawn of some
// steps at once.
template <class Context>
class StepMasks {
 public:
  using Real = typename Context::Real;

  // `stride`: from a step to that which is taken next, up to `end`.
  FUSEDRNN_MEMBER StepMasks(const Context& context, int64_t stride, int64_t end)
      : context_(context), stride_(stride), end_(end) {
    if (context.p.noise.training) find();
  }

  // Before a step is taken: maps find its masks then in the arrays of the stages, which begin with
  // those of the first step that is drawn.
  template <class Arrays>
  FUSEDRNN_MEMBER void enter(int64_t step, Arrays* arrays) {
    if (count_ == 0) return;
    int64_t place = (step - first_) * stride_;
    if (drawn_ == 0 || place >= drawn_) {
      draw_from(step);
      place = 0;
    }
    const int64_t numbers = (place - place_) * context_.p.B * context_.job.ld_state;
    place_ = place;
    for (int i = 0; i < context_.shape.stage_count; ++i) {
      if (arrays[i].candidate.data != nullptr) arrays[i].candidate.data += numbers;
      for (int s = 0; s < context_.shape.state_count; ++s) {
        if (arrays[i].zoneout[s].data != nullptr) arrays[i].zoneout[s].data += numbers;
      }
    }
  }

 private:
  FUSEDRNN_ONCE void find() {
    const Noise& noise = context_.p.noise;
    if (noise.candidate != 0) {
      begin_own_mask(context_, cells::row_of_mask(cells::Mask::candidate, noise.run),
                     noise.candidate, false, 'H', context_.job.noise.candidate, each_[count_++]);
    }
    for (int s = 0; s < context_.shape.state_count; ++s) {
      if (noise.zoneout[s] == 0) continue;
      begin_own_mask(context_, cells::row_of_zoneout(s, noise.run), noise.zoneout[s], true,
                     context_.shape.states[s].size, context_.job.noise.zoneout[s], each_[count_++]);
    }
  }

  FUSEDRNN_ONCE void draw_from(int64_t step) {
    const int64_t left = (end_ - step) * stride_, most = context_.job.noise.steps;
    first_ = step;
    drawn_ = left < most ? left : most;
    PlacesOf<Real> places(each_, count_);
    for (int64_t i = 0; i < drawn_; ++i, step += stride_) {
      const int64_t t = context_.p.noise.first_step + context_.slots.time(step);
      const Range rows = context_.living(step);
      for (int64_t row = rows.begin; row < rows.end; ++row) {
        places.add({t, context_.sequences.number(row), context_.state_offset(i, row)});
      }
    }
    places.draw_all();
  }

  const Context& context_;
  const int64_t stride_, end_;
  int64_t first_ = 0, drawn_ = 0;  // steps that are drawn
  int64_t place_ = 0;              // of that which the arrays show
  int count_ = 0;
  OwnMask<Real> each_[1 + kMaxStates];
};

// At most kUnitsTogether of those that are left of a row; what is dropped is zero whatever it was.
template <class V, class Edge>
FUSEDRNN_INLINE void drop_units(const Edge* from, const typename V::real* factors, int64_t left,
                                Edge* to) {
  for (int64_t unit = 0; unit < kUnitsTogether && unit < left; unit += V::width) {
    const V factor = V::load(factors + unit);
    const auto dropped = factor <= V::zero();
    if (left - unit >= V::width) {
      select(dropped, V::zero(), V::load(from + unit) * factor).store(to + unit);
    } else {
      const int lanes = static_cast<int>(left - unit);
      select(dropped, V::zero(), V::load(from + unit, lanes) * factor).store(to + unit, lanes);
    }
  }
}

// This thread's share of the T * B rows.
template <class F>
void run_drop(const DropCall& call, int thread, int threads) {
  using V = typename F::V;
  using Edge = typename F::Edge;
  using Real = typename F::Real;
  const RowKernels<Real>& kernels = row_kernels<Real>();
  MaskValues<Real> mask;
  kernels.begin_mask(call.seed, call.row, call.rate, false, mask);
  const int64_t rows = call.T * call.B;
  const int64_t begin = rows * thread / threads, end = rows * (thread + 1) / threads;
  int64_t t = begin / call.B, b = begin % call.B;
  alignas(64) Real factors[kPlacesTogether * kUnitsTogether];
  Place places[kPlacesTogether];
  const Edge* from[kPlacesTogether];
  Edge* to[kPlacesTogether];
  for (int64_t row = begin; row < end; row += kPlacesTogether) {
    const int64_t left = end - row, count = left < kPlacesTogether ? left : kPlacesTogether;
    for (int64_t i = 0; i < count; ++i) {
      const auto at = [&](const Sequence& s) {
        return static_cast<Edge*>(s.data) + t * s.t_stride + b * s.b_stride;
      };
      places[i] = {call.first_step + t, b, i * kUnitsTogether};
      from[i] = at(call.from);
      to[i] = at(call.to);
      if (++b == call.B) b = 0, ++t;
    }
    for (int64_t first = 0; first < call.n; first += kUnitsTogether) {
      kernels.draw(mask, first / cells::kUnitsOfDraw, places, count, factors);
      for (int64_t i = 0; i < count; ++i) {
        drop_units<V>(from[i] + first, factors + i * kUnitsTogether, call.n - first, to[i] + first);
      }
    }
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
