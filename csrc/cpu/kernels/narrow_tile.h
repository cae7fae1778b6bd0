// A tile of a format that stores other numbers than maps compute with: what the map reads is
// converted before it, what it writes afterwards, while both are in the first-level cache.
#pragma once

#include "cpu/kernels/backward_context.h"
#include "cpu/kernels/forward_context.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Rows of which `numbers` are those of a tile, the first of them at (row, unit). There are no
// others: the address of (0, 0) may lie outside of the array, so it is computed as a number.
template <class Real>
FUSEDRNN_INLINE Rows<Real> placed(Real* numbers, int64_t stride, int64_t row, int64_t unit) {
  const auto offset = static_cast<uintptr_t>(row * stride + unit) * sizeof(Real);
  return {reinterpret_cast<Real*>(reinterpret_cast<uintptr_t>(numbers) - offset), stride};
}

// The units of a tile's panels, all of them and those that exist.
struct TileUnits {
  int64_t first, padded, count;

  FUSEDRNN_MEMBER TileUnits(const Tile& tile, int64_t panel_units, int64_t units)
      : first(tile.panel * panel_units),
        padded(tile.panels * panel_units),
        count(units - first < padded ? units - first : padded) {}
};

// Whole vectors: rows inside are padded.
template <class V, class From, class To>
FUSEDRNN_INLINE void convert_vectors(const From* src, int64_t count, To* dst) {
  for (int64_t i = 0; i < count; i += V::width) V::load(src + i).store(dst + i);
}
// Rows of the caller's are not.
template <class V, class Number>
FUSEDRNN_INLINE void widen(const Number* src, int64_t count, typename V::real* dst) {
  int64_t i = 0;
  for (; count - i >= V::width; i += V::width) V::load(src + i).store(dst + i);
  if (i < count) V::load(src + i, static_cast<int>(count - i)).store(dst + i);
}
template <class V, class Number>
FUSEDRNN_INLINE void narrow(const typename V::real* src, int64_t count, Number* dst) {
  int64_t i = 0;
  for (; count - i >= V::width; i += V::width) V::load(src + i).store(dst + i);
  if (i < count) V::load(src + i).store(dst + i, static_cast<int>(count - i));
}

// Numbers of one state, or one gate, in a tile.
template <class F>
constexpr int kTileNumbers = kTileSums<F, kRecurrentPanel>;
static_assert(kMaxUnitVectors <= kRecurrentPanel);

// Whether a map reads the h that enters a step; `plain`: all its rows go through it as if there
// were no masks.
template <class Context>
FUSEDRNN_INLINE bool reads_h(const Context& context, bool plain) {
  return context.shape.reads_h || !plain || zones_out(context.p);
}

template <class Step>
FUSEDRNN_INLINE bool is_plain(const Step& step) {
  if (step.flags == nullptr) return true;
  const Tile all{0, 1, step.rows.begin, step.rows.size(), 0, 0};
  return all_are(step.flags, all, kValid | kShown, kValid | kShown) &&
         all_are(step.next_flags, all, kCut, 0);
}

// It, as a map reads it.
template <class Context>
FUSEDRNN_INLINE void widen_h(const Context& context, int64_t slot, const Tile& tile,
                             const TileUnits& units, typename Context::Real* numbers) {
  for (int64_t m = 0; m < tile.rows; ++m) {
    convert_vectors<typename Context::V>(context.h_row(slot, tile.row + m) + units.first,
                                         units.count, numbers + m * units.padded);
  }
}

// What runs a map over tiles of formats whose outside is what maps compute with: at once where rows
// are in the caller's order, else what is the caller's goes through rows of the tile.
template <class F>
class PlainForward {
 public:
  using Real = typename F::Real;

  FUSEDRNN_MEMBER PlainForward(const ForwardContext<F>& context, const ForwardStep& step, int index,
                               ForwardArrays<Real>& arrays)
      : context_(context), step_(step), index_(index), arrays_(arrays) {}

  FUSEDRNN_MEMBER void run(const Tile& tile, ForwardMap<Real> map, const Real* sums) const {
    if (context_.sequences.order.numbers == nullptr) {
      map(arrays_, tile, sums);
    } else {
      run_in_order(tile, map, sums);
    }
  }

 private:
  FUSEDRNN_ONCE void run_in_order(const Tile& tile, ForwardMap<Real> map, const Real* sums) const {
    alignas(64) Real y[kTileNumbers<F>], state_y[kMaxStates][kTileNumbers<F>];
    const StageShape& stage = context_.shape.stages[index_];
    const TileUnits units(tile, context_.panel_units, extent(context_.p, stage.units));
    const int64_t unit = units.first - arrays_.unit;
    const auto for_shown = [&](const auto& visit) FUSEDRNN_LAMBDA {
      for (int s = 0; s < context_.shape.state_count; ++s) {
        const StateShape& state = context_.shape.states[s];
        if (state.size != stage.units || state.last_stage != index_) continue;
        if (s == 0) visit(context_.call.y, y, arrays_.y);
        if (step_.shows_states) visit(context_.call.state_y[s], state_y[s], arrays_.state_y[s]);
      }
    };
    for_shown([&](const Sequence& caller, Real* numbers, Rows<Real>& rows) FUSEDRNN_LAMBDA {
      if (caller.data != nullptr) rows = placed(numbers, units.padded, tile.row, unit);
    });
    map(arrays_, tile, sums);
    for_shown([&](const Sequence& caller, const Real* numbers, Rows<Real>&) FUSEDRNN_LAMBDA {
      const auto rows = context_.template caller_rows<Real>(caller, step_.time, units.first);
      for (int64_t m = 0; m < tile.rows && rows.data != nullptr; ++m) {
        narrow<typename F::V>(numbers + m * units.padded, units.count, rows.at(tile.row + m, 0));
      }
    });
  }

  const ForwardContext<F>& context_;
  const ForwardStep& step_;
  const int index_;  // of the stage
  ForwardArrays<Real>& arrays_;
};

template <class F>
class PlainBackward {
 public:
  using Real = typename F::Real;

  FUSEDRNN_MEMBER PlainBackward(const BackwardContext<F>& context, const BackwardStep& step,
                                int index, BackwardArrays<Real>& arrays)
      : context_(context), step_(step), index_(index), arrays_(arrays) {}

  FUSEDRNN_MEMBER void run(const Tile& tile, BackwardMap<Real> map, const Real* sums) const {
    if (context_.sequences.order.numbers == nullptr) {
      map(arrays_, tile, sums);
    } else {
      run_in_order(tile, map, sums);
    }
  }

 private:
  FUSEDRNN_ONCE void run_in_order(const Tile& tile, BackwardMap<Real> map, const Real* sums) const {
    alignas(64) Real dy[kTileNumbers<F>], dstate_y[kMaxStates][kTileNumbers<F>];
    const char letter = context_.shape.stages[index_].units;
    const TileUnits units(tile, context_.panel_units, extent(context_.p, letter));
    const auto read = [&](const Sequence& caller, Real* numbers,
                          Rows<const Real>& to) FUSEDRNN_LAMBDA {
      const auto rows = context_.template caller_rows<const Real>(caller, step_.time, units.first);
      if (rows.data == nullptr) return;
      for (int64_t m = 0; m < tile.rows; ++m) {
        if (!is_shown(step_.flags, tile.row + m)) continue;
        widen<typename F::V>(rows.at(tile.row + m, 0), units.count, numbers + m * units.padded);
      }
      to = {placed(numbers, units.padded, tile.row, units.first).data, units.padded};
    };
    for (int s = 0; s < context_.shape.state_count; ++s) {
      if (context_.shape.states[s].size != letter) continue;
      if (s == 0) read(context_.call.dy, dy, arrays_.dy);
      if (step_.shows_states) read(context_.call.dstate_y[s], dstate_y[s], arrays_.dstate_y[s]);
    }
    map(arrays_, tile, sums);
  }

  const BackwardContext<F>& context_;
  const BackwardStep& step_;
  const int index_;  // of the stage
  BackwardArrays<Real>& arrays_;
};

template <class F>
class NarrowForward {
 public:
  using Edge = typename F::Edge;
  using Real = typename F::Real;
  using V = typename F::V;
  static constexpr bool kSameOutside = kSame<Edge, Real>;
  static constexpr bool kSameState = kSame<typename F::State, Real>;
  static constexpr bool kSamePassed = kSame<typename F::Passed, Real>;
  static constexpr int kNumbers = kTileNumbers<F>;

  // Of all tiles of a stage: some steps take less time than these questions would for each.
  FUSEDRNN_MEMBER NarrowForward(const ForwardContext<F>& context, const ForwardStep& step,
                                int index, ForwardArrays<Real>& arrays)
      : context_(context),
        step_(step),
        index_(index),
        arrays_(arrays),
        stage_(context.shape.stages[index]),
        units_(extent(context.p, stage_.units)),
        has_h_(context.shape.states[0].size == stage_.units),
        sets_h_(has_h_ && context.shape.states[0].last_stage == index),
        plain_(is_plain(step)),
        reads_h_(reads_h(context, plain_)),
        shows_h_(!kSameOutside && sets_h_ && plain_),
        sees_states_(!kSameOutside && (step.shows_states || !plain_)),
        saves_(stage_.units == 'H' && context.job.kept.saved != nullptr &&
               context.shape.saved_bytes != sizeof(Real)) {
    if (!kSameOutside && plain_) {  // what a step with masks has left
      arrays.y = {};
      for (int s = 0; s < kMaxStates; ++s) {
        arrays.state_y[s] = {};
        arrays.reset[s] = nullptr;
      }
    }
  }

  FUSEDRNN_MEMBER void run(const Tile& tile, ForwardMap<Real> map, const Real* sums) {
    const TileUnits units(tile, context_.panel_units, units_);
    prepare(tile, units);
    if constexpr (kSameOutside) {
      PlainForward<F>{context_, step_, index_, arrays_}.run(tile, map, sums);
    } else {
      map(arrays_, tile, sums);
    }
    if (sets_h_) store_h(tile, units);
    if (sees_states_) store_state_y(tile, units);
    if (stage_.passes) store_passed(tile, units);
    if (saves_) store_saved(tile, units);
  }

 private:
  FUSEDRNN_MEMBER void prepare(const Tile& tile, const TileUnits& units) {
    const KernelShape& shape = context_.shape;
    const int64_t row = tile.row, unit = units.first - arrays_.unit;
    const int64_t padded = units.padded;
    if (saves_) arrays_.saved = placed(saved_, shape.saved * padded, row, unit * shape.saved);
    if constexpr (!kSamePassed) {
      if (stage_.passes) arrays_.passed = placed(passed_, padded, row, unit);
    }
    if constexpr (!kSameState) {
      if (has_h_) {
        if (reads_h_) widen_h(context_, step_.entering, tile, units, prev_);
        arrays_.prev[0] = {placed(prev_, padded, row, unit).data, padded};
        arrays_.next[0] = placed(next_, padded, row, unit);
      }
    }
    if constexpr (!kSameOutside) {
      if (has_h_ && !shows_h_) arrays_.y = placed(y_, padded, row, unit);
      if (sees_states_) prepare_states(tile, units);
    }
  }

  // What is wanted of states, and what they are reset to.
  FUSEDRNN_ONCE void prepare_states(const Tile& tile, const TileUnits& units) {
    const KernelShape& shape = context_.shape;
    const int64_t unit = units.first - arrays_.unit;
    for (int s = 0; s < shape.state_count; ++s) {
      if (context_.call.state_y[s].data != nullptr) {
        arrays_.state_y[s] = placed(state_y_[s], units.padded, tile.row, unit);
      }
      const auto* const reset = static_cast<const Edge*>(context_.call.reset_state[s].data);
      if (reset == nullptr || shape.states[s].size != stage_.units) continue;
      if (step_.next_flags == nullptr) continue;
      widen<V>(reset + units.first, units.count, reset_[s]);
      arrays_.reset[s] = placed(reset_[s], units.padded, 0, unit).data;
    }
  }

  FUSEDRNN_MEMBER void store_h(const Tile& tile, const TileUnits& units) {
    const int64_t all = extent(context_.p, context_.shape.states[0].size);
    const Rows<Real>& next = arrays_.next[0];
    const Real* src = next.at(tile.row, units.first - arrays_.unit);
    CallerRows<Edge> rows;
    if constexpr (!kSameOutside) {
      rows = context_.template caller_rows<Edge>(context_.call.y, step_.time, units.first);
    }
    // Nothing is to be filled up: most tiles.
    const bool whole = !F::kMixed && units.count == units.padded &&
                       (F::kDepthUnit <= V::width || units.first + units.padded < all);
    if (whole && shows_h_) {
      typename F::State* h = context_.h_row(step_.leaving, tile.row) + units.first;
      for (int64_t m = 0; m < tile.rows; ++m, src += next.stride, h += context_.row_stride) {
        Edge* const y = rows.at(tile.row + m, 0);
        for (int64_t i = 0; i < units.padded; i += V::width) {
          Edge rounded[V::width];
          V::load(src + i).store(rounded);
          __builtin_memcpy(y + i, rounded, sizeof rounded);
          if constexpr (kSame<Edge, typename F::State>) {
            __builtin_memcpy(h + i, rounded, sizeof rounded);
          } else {
            V::load(rounded).store(h + i);
          }
        }
      }
      return;
    }
    for (int64_t m = 0; m < tile.rows; ++m, src += next.stride) {
      Edge* const y = kSameOutside ? nullptr : rows.at(tile.row + m, 0);
      for (int64_t i = 0; i < units.count; i += V::width) {
        const V rounded = F::round_state(V::load(src + i));
        if (shows_h_) rounded.store(y + i, lanes_at<V>(i, units.count));
        context_.store_state(0, step_.leaving, tile.row + m, units.first + i, rounded,
                             context_.shape.h_stage, all);
      }
      if (!kSameOutside && !shows_h_) narrow<V>(y_ + m * units.padded, units.count, y);
    }
  }

  void store_state_y(const Tile& tile, const TileUnits& units) {
    for (int s = 0; s < context_.shape.state_count; ++s) {
      const StateShape& state = context_.shape.states[s];
      if (state.size != stage_.units || state.last_stage != index_) continue;
      const auto y =
          context_.template caller_rows<Edge>(context_.call.state_y[s], step_.time, units.first);
      for (int64_t m = 0; m < tile.rows && y.data != nullptr; ++m) {
        narrow<V>(state_y_[s] + m * units.padded, units.count, y.at(tile.row + m, 0));
      }
    }
  }

  FUSEDRNN_MEMBER void store_passed(const Tile& tile, const TileUnits& units) {
    const int64_t all = units_;
    const Rows<Real>& passed = arrays_.passed;
    for (int64_t m = 0; m < tile.rows; ++m) {
      if (!is_valid(step_.flags, tile.row + m)) continue;
      const Real* src = passed.at(tile.row + m, units.first - arrays_.unit);
      auto* const dst = context_.passed_row(index_ + 1, step_.of_step, tile.row + m);
      for (int64_t i = 0; i < units.count; i += V::width) {
        context_.store_operand(dst, units.first + i, all, F::round_operand(V::load(src + i)));
      }
    }
  }

  FUSEDRNN_MEMBER void store_saved(const Tile& tile, const TileUnits& units) {
    const int64_t stride = context_.saved_stride(), count = context_.shape.saved * units.padded;
    auto* dst = static_cast<typename F::Saved*>(context_.job.kept.saved) +
                context_.saved_offset(step_.of_step, tile.row) + units.first * context_.shape.saved;
    const Real* src = saved_;
    for (int64_t m = 0; m < tile.rows; ++m, src += count, dst += stride) {
      if (is_valid(step_.flags, tile.row + m)) convert_vectors<V>(src, count, dst);
    }
  }

  const ForwardContext<F>& context_;
  const ForwardStep& step_;
  const int index_;  // of the stage
  ForwardArrays<Real>& arrays_;
  const StageShape& stage_;
  const int64_t units_;
  const bool has_h_, sets_h_;
  const bool plain_;  // of the step
  const bool reads_h_;
  const bool shows_h_;      // y and the next h are the same numbers: there are no masks
  const bool sees_states_;  // whether one is wanted of every step, or reset
  const bool saves_;        // other numbers than the map computes with
  alignas(64) Real prev_[kSameState ? 1 : kNumbers], next_[kSameState ? 1 : kNumbers];
  alignas(64) Real passed_[kSamePassed ? 1 : kNumbers], saved_[kNumbers * kMaxSaved];
  alignas(64) Real y_[kSameOutside ? 1 : kNumbers];
  alignas(64) Real state_y_[kMaxStates][kSameOutside ? 1 : kNumbers];
  alignas(64) Real reset_[kMaxStates][kSameOutside ? 1 : kNumbers];
};

template <class F>
class NarrowBackward {
 public:
  using Edge = typename F::Edge;
  using Real = typename F::Real;
  using Row = typename F::Row;
  using V = typename F::V;
  static constexpr bool kSameOutside = kSame<Edge, Real>;
  static constexpr bool kSameState = kSame<typename F::State, Real>;
  static constexpr int kNumbers = kTileNumbers<F>;

  FUSEDRNN_MEMBER NarrowBackward(const BackwardContext<F>& context, const BackwardStep& step,
                                 int index, BackwardArrays<Real>& arrays)
      : context_(context),
        step_(step),
        index_(index),
        arrays_(arrays),
        letter_(context.shape.stages[index].units),
        units_(extent(context.p, letter_)),
        reads_h_(reads_h(context, step.flags == nullptr)) {}

  FUSEDRNN_MEMBER void run(const Tile& tile, BackwardMap<Real> map, const Real* sums) {
    const TileUnits units(tile, context_.panel_units, units_);
    prepare(tile, units, letter_);
    if constexpr (kSameOutside) {
      PlainBackward<F>{context_, step_, index_, arrays_}.run(tile, map, sums);
    } else {
      map(arrays_, tile, sums);
    }
    store_deltas(tile, units, units_);
  }

 private:
  FUSEDRNN_MEMBER void prepare(const Tile& tile, const TileUnits& units, char letter) {
    const KernelShape& shape = context_.shape;
    const int64_t padded = units.padded;
    arrays_.delta = placed(delta_, shape.deltas * padded, tile.row, units.first);
    arrays_.delta_block = padded;
    if (letter == 'H' && shape.saved_bytes != sizeof(Real)) {
      // The last tile may be wider than the panels that hold units.
      const int64_t panel = context_.saved_panel();
      const int64_t held = units.count == padded ? padded : blocks_of(units.count, panel) * panel;
      const int64_t count = held * shape.saved;
      const int64_t stride = context_.saved_stride();
      const auto* src = static_cast<const typename F::Saved*>(context_.job.kept.saved) +
                        context_.saved_offset(context_.kept_slot(step_.time), tile.row) +
                        units.first * shape.saved;
      for (int64_t m = 0; m < tile.rows; ++m, src += stride) {
        if (!is_valid(step_.flags, tile.row + m)) continue;
        convert_vectors<V>(src, count, saved_ + m * shape.saved * padded);
      }
      arrays_.saved =
          const_rows(placed(saved_, shape.saved * padded, tile.row, units.first * shape.saved));
    }
    const bool has_h = shape.states[0].size == letter;
    if constexpr (!kSameState) {
      if (has_h) {
        if (reads_h_) widen_h(context_, step_.entering, tile, units, prev_);
        arrays_.prev[0] = const_rows(placed(prev_, padded, tile.row, units.first));
      }
    }
    if constexpr (!kSameOutside) {
      if (has_h) arrays_.dy = widened(context_.call.dy, tile, units, dy_);
      for (int s = 0; s < shape.state_count && step_.shows_states; ++s) {
        if (shape.states[s].size != letter) continue;
        arrays_.dstate_y[s] = widened(context_.call.dstate_y[s], tile, units, dstate_y_[s]);
      }
    }
  }

  FUSEDRNN_MEMBER static Rows<const Real> const_rows(Rows<Real> rows) {
    return {rows.data, rows.stride};
  }

  FUSEDRNN_MEMBER Rows<const Real> widened(const Sequence& dy, const Tile& tile,
                                           const TileUnits& units, Real* numbers) const {
    const auto rows = context_.template caller_rows<const Edge>(dy, step_.time, units.first);
    if (rows.data == nullptr) return {};
    for (int64_t m = 0; m < tile.rows; ++m) {
      if (is_shown(step_.flags, tile.row + m)) {
        widen<V>(rows.at(tile.row + m, 0), units.count, numbers + m * units.padded);
      }
    }
    return const_rows(placed(numbers, units.padded, tile.row, units.first));
  }

  FUSEDRNN_MEMBER void store_deltas(const Tile& tile, const TileUnits& units, int64_t all) {
    const int64_t padded = units.padded, deltas = context_.shape.deltas;
    for (int64_t d = 0; d < deltas; ++d) {
      if (context_.shape.delta_stage[d] != index_) continue;
      const int optional = context_.shape.delta_only_for[d];
      if (optional >= 0 && context_.call.dparameters[optional].data == nullptr) continue;
      const Real* src = delta_ + d * padded;
      Row* dst =
          context_.delta_row(step_.time, tile.row) + d * context_.job.delta_block + units.first;
      for (int64_t m = 0; m < tile.rows;
           ++m, src += deltas * padded, dst += context_.delta_stride) {
        if (units.count == padded) {
          for (int64_t i = 0; i < padded; i += V::width) {
            F::round_gradient(V::load(src + i)).store(dst + i);
          }
        } else {
          for (int64_t i = 0; i < padded; i += V::width) {
            context_.store_delta(dst + i, F::round_gradient(V::load(src + i)), units.first + i,
                                 all);
          }
        }
      }
    }
  }

  const BackwardContext<F>& context_;
  const BackwardStep& step_;
  const int index_;  // of the stage
  BackwardArrays<Real>& arrays_;
  const char letter_;  // of the stage's units
  const int64_t units_;
  const bool reads_h_;
  alignas(64) Real prev_[kSameState ? 1 : kNumbers], saved_[kNumbers * kMaxSaved];
  alignas(64) Real dy_[kSameOutside ? 1 : kNumbers], delta_[kNumbers * kMaxDeltas];
  alignas(64) Real dstate_y_[kMaxStates][kSameOutside ? 1 : kNumbers];
};

template <class F>
using ForwardMapper = typename Choose<F::kConverts, NarrowForward<F>, PlainForward<F>>::type;
template <class F>
using BackwardMapper = typename Choose<F::kConverts, NarrowBackward<F>, PlainBackward<F>>::type;

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
