// Backpropagation through time, of one thread. Each step multiplies the gradients of the following
// step by W_hh and runs the cell's backward on the result while the tile is at hand; only those
// gradients (delta) are exchanged. The gradients of the weights come after the walk, as products
// over all steps.
#pragma once

#include "cpu/kernels/forward.h"
#include "cpu/kernels/weight_gradients.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class Cell, class F>
class Backward {
 public:
  Backward(const BackwardJob& job, int thread)
      : job_(job),
        call_(*job.call),
        p_(job.call->problem),
        slots_{p_.T, p_.reverse, true},
        thread_(thread),
        threads_(job.grid.row_groups * job.grid.unit_groups),
        group_(thread / job.grid.unit_groups),
        rows_(share(p_.B, job.grid.row_groups, group_)),
        panels_(share(panels_of(p_.H, kVectors), job.grid.unit_groups,
                      thread % job.grid.unit_groups)) {}

  void run() {
    pack();
    begin_carry();
    wait_at(*job_.grid.all);
    for (int64_t step = p_.T - 1; step >= 0; --step) walk_phases<Cell::kPhases - 1>(step);
    for_products<F, kVectors>(registers_, p_.B, Initial{*this}, panels_.begin, panels_.end,
                              rows_.begin, rows_.end);
    wait_at(*job_.grid.all);
    weight_gradients();
  }

 private:
  using Edge = typename F::Edge;
  using Real = typename F::Real;
  using Row = typename F::Row;
  using Panel = typename F::Panel;
  using V = typename F::V;
  using Dot = typename F::Dot;
  using Saved = SavedOf<Cell, F>;
  static constexpr int W = V::width;
  static constexpr int U = Cell::kUnitVectors * W;
  static constexpr int G = Cell::kGates;
  static constexpr int S = Cell::kSaved;
  static constexpr int kStates = Cell::kStates;
  static constexpr int kVectors = kRecurrentPanel;
  static constexpr int kSums = kTileSums<F, kVectors>;

  static constexpr int64_t panels_of(int64_t columns, int vectors) {
    return (columns + vectors * W - 1) / (vectors * W);
  }
  static constexpr int gate_of_input_delta(int delta) {
    int gate = 0;
    while (Cell::input_delta(gate) != delta) ++gate;
    return gate;
  }

  void pack() {
    const Range own = share(panels_of(p_.H, kVectors), threads_, thread_);
    for (int phase = 0; phase < Cell::kPhases; ++phase) {
      const int gates = Cell::phase_gates(phase);
      for (int g = 0; g < gates; ++g) {
        pack_gate<kVectors>(call_.w_hh, Cell::phase_first(phase) + g, p_.H, own, g, gates,
                            job_.packed_transposed[phase]);
      }
    }
    if (call_.dx.data == nullptr) return;
    const Range inputs = share(panels_of(p_.I, kWidePanel), threads_, thread_);
    for (int delta = 0; delta < G; ++delta) {
      pack_gate<kWidePanel>(call_.w_ih, gate_of_input_delta(delta), p_.I, inputs, delta, G,
                            job_.packed_input);
    }
  }

  // One gate's rows of w, as block `index` of the `blocks` in every panel.
  template <int Vectors>
  void pack_gate(const Matrix& w, int gate, int64_t columns, Range panels, int index, int blocks,
                 void* packed) const {
    const int64_t block = job_.delta_block * Vectors * W;
    pack_columns<F, Vectors>(static_cast<const Edge*>(w.data) + gate * p_.H * w.stride, w.stride,
                             p_.H, columns, panels, blocks * block,
                             static_cast<Panel*>(packed) + index * block);
  }

  // carry = the gradients of the states after the last step.
  void begin_carry() {
    for (int s = 0; s < kStates; ++s) {
      const Matrix& last = call_.dstate_n[s];
      for (int64_t b = rows_.begin; b < rows_.end; ++b) {
        for (int64_t v = panels_.begin * kVectors; v < panels_.end * kVectors; ++v) {
          const int n = last.data == nullptr ? 0 : lanes(v * W);
          V::load(static_cast<const Edge*>(last.data) + (n > 0 ? b * last.stride + v * W : 0), n)
              .store(carry_row(s, b) + v * W);
        }
      }
    }
  }

  // --- one phase of one step ---

  // The gradient of what phase `Source` multiplied, from the deltas of its gates at `time`.
  template <int Source>
  FUSEDRNN_MEMBER void recurrent_product(int64_t time, Tile tile, Real* sums) const {
    const int64_t column = Cell::recurrent_delta(Cell::phase_first(Source)) * job_.delta_block;
    Product<F> product;
    product.depth = Cell::phase_gates(Source) * job_.delta_block;
    product.set_weights(static_cast<const Panel*>(job_.packed_transposed[Source]), 0,
                        product.depth * kVectors * W, tile);
    product.out = sums;
    product.out_row = kVectors * W;
    product.out_panel = tile.rows * kVectors * W;
    product.set_rows(delta_row(time, tile.first_row()) + column, job_.ld_delta);
    run_product<kVectors>(product, tile);
  }

  // Whether a step multiplies the state that enters it. Where it does not, the product of its
  // deltas is no gradient: not even zero, where a weight is NaN.
  static FUSEDRNN_MEMBER bool is_multiplied(const uint8_t* flags, int64_t b) {
    return flags == nullptr || (flags[b] & (kValid | kCut)) == kValid;
  }

  // The product of nothing.
  static FUSEDRNN_MEMBER void clear(Real* sums) {
    for (int i = 0; i < kSums; i += W) V::zero().store(sums + i);
  }

  // Calls finish(sum, unit, b) for each vector of units and sequence of a tile.
  template <class Finish>
  FUSEDRNN_MEMBER void for_vectors(Tile tile, const Real* sums, const Finish& finish) const {
    sums += tile.repeated * kVectors * W;
    for (int64_t panel = tile.panel; panel < tile.panel + tile.panels; ++panel) {
      for (int64_t b = tile.row; b < tile.row + tile.rows; ++b) {
        for (int n = 0; n < kVectors; ++n, sums += W) {
          finish(V::load(sums), (panel * kVectors + n) * W, b);
        }
      }
    }
  }

  template <int Phase>
  struct Step {
    static constexpr bool kFirst = Phase == Cell::kPhases - 1;  // of the phases, going backward
    static constexpr int kSource = kFirst ? 0 : Phase + 1;

    const Backward& f;
    int64_t step, time;
    int64_t source_time;             // whose deltas are multiplied; negative: none
    const uint8_t* flags;            // of this step, or null
    const uint8_t* flags_following;  // of the step whose deltas reach h, or null

    void run(Tile tile) const {
      alignas(64) Real sums[kSums];
      if (source_time >= 0 && has_gradient(tile)) {
        f.template recurrent_product<kSource>(source_time, tile, sums);
      } else {
        clear(sums);
      }
      f.for_vectors(tile, sums, [this](V product, int64_t unit, int64_t b) FUSEDRNN_LAMBDA {
        finish(product, unit, b);
      });
    }

    // Deltas of steps that do not exist are zero, and so is their product.
    FUSEDRNN_MEMBER bool has_gradient(Tile tile) const {
      if (flags == nullptr) return true;
      bool any = false;
      for (int64_t b = tile.row; b < tile.row + tile.rows; ++b) {
        any |= (flags[b] & kValid) != 0;
        any |= flags_following != nullptr && (flags_following[b] & kValid) != 0;
      }
      return any;
    }

    FUSEDRNN_MEMBER void finish(V product, int64_t unit, int64_t b) const {
      const int n = f.lanes(unit);
      if (n <= 0) {
        if (F::kDepthUnit > W && unit < f.job_.delta_block) fill_up_deltas(unit, b);
        return;
      }
      const bool valid = flags == nullptr || (flags[b] & kValid) != 0;
      const bool cut = flags != nullptr && (flags[b] & kCut) != 0;
      V delta[Cell::kDeltas], dnext[kStates], dprev[kStates];
      for (int s = 0; s < kStates; ++s) dnext[s] = V::load(f.carry_row(s, b) + unit);
      if constexpr (kFirst) {
        if (is_multiplied(flags_following, b)) dnext[0] = dnext[0] + product;
      }
      for (int s = 0; s < kStates; ++s) dprev[s] = dnext[s];
      if (valid) {
        if constexpr (kFirst) {
          if (f.call_.dy.data != nullptr) dnext[0] = dnext[0] + f.load_dy(time, b, unit, n);
        }
        const Saved* saved_row = f.saved_at(time, b, unit);
        V saved[S], prev[kStates];
        for (int i = 0; i < S; ++i) saved[i] = V::load(saved_row + i * U);
        const int64_t slot = f.slots_.entering(step);
        prev[0] = V::load(f.h_row(slot, b) + unit);
        for (int s = 1; s < kStates; ++s) prev[s] = V::load(f.state_row(s, slot, b) + unit);
        Cell::template backward<Phase>(saved, prev, dnext, product, delta, dprev);
        if (cut && Phase == 0) {
          for (int s = 0; s < kStates; ++s) dprev[s] = V::zero();
        }
      } else {
        for (int d = 0; d < Cell::kDeltas; ++d) delta[d] = V::zero();
      }
      for (int s = 0; s < kStates; ++s) dprev[s].store(f.carry_row(s, b) + unit);
      // Products read what fills up the block: zeros, not the gradients of lanes beyond H, which
      // are NaN where x was infinite.
      const int64_t left = f.job_.delta_block - unit;
      const int filled = left < W ? static_cast<int>(left) : W;
      Row* dst = f.delta_row(time, b) + unit;
      for (int d = 0; d < Cell::kDeltas; ++d, dst += f.job_.delta_block) {
        if (Cell::delta_phase(d) != Phase) continue;
        const V gradient = F::round_gradient(delta[d]);
        if (n == W) {
          gradient.store(dst);
        } else {
          if (F::kDepthUnit > 1) V::zero().store(dst, filled);
          gradient.store(dst, n);
        }
      }
    }

    FUSEDRNN_MEMBER void fill_up_deltas(int64_t unit, int64_t b) const {
      for (int d = 0; d < Cell::kDeltas; ++d) {
        if (Cell::delta_phase(d) != Phase) continue;
        V::zero().store(f.delta_row(time, b) + d * f.job_.delta_block + unit);
      }
    }
  };

  template <int Phase>
  FUSEDRNN_MEMBER void walk_phases(int64_t step) {
    using Work = Step<Phase>;
    const int64_t time = slots_.time(step);
    const bool last = step + 1 == p_.T;
    const int64_t source = !Work::kFirst ? time : last ? -1 : slots_.time(step + 1);
    for_products<F, kVectors>(
        registers_, p_.B,
        Work{*this, step, time, source, flags_at(step), last ? nullptr : flags_at(step + 1)},
        panels_.begin, panels_.end, rows_.begin, rows_.end, turns(step));
    if (job_.grid.unit_groups > 1) wait_at(*job_.grid.group[group_]);
    if constexpr (Phase > 0) walk_phases<Phase - 1>(step);
  }

  // --- the gradients of the initial states ---

  struct Initial {
    const Backward& f;

    void run(Tile tile) const {
      alignas(64) Real sums[kSums];
      if (f.call_.dstate_0[0].data != nullptr) {
        f.template recurrent_product<0>(f.slots_.time(0), tile, sums);
      } else {
        clear(sums);
      }
      const uint8_t* flags = f.flags_at(0);
      f.for_vectors(tile, sums, [&](V product, int64_t unit, int64_t b) FUSEDRNN_LAMBDA {
        const int count = f.lanes(unit);
        for (int s = 0; s < kStates && count > 0; ++s) {
          const Matrix& out = f.call_.dstate_0[s];
          if (out.data == nullptr) continue;
          V d = V::load(f.carry_row(s, b) + unit);
          if (s == 0 && is_multiplied(flags, b)) d = d + product;
          d.store(static_cast<Edge*>(out.data) + b * out.stride + unit, count);
        }
      });
    }
  };

  // --- weights, biases and inputs ---

  void weight_gradients() {
    const DeltaRows deltas{job_.delta, job_.ld_delta, job_.delta_block, p_.T, p_.B, call_.flags};
    const WeightGradients<F> gradients{
        deltas,
        p_.H,
        thread_,
        threads_,
        job_.block_rows,
        job_.block_columns,
        static_cast<char*>(job_.scratch.data) + thread_ * job_.scratch.bytes,
        registers_};
    if (call_.dw_ih.data != nullptr) {
      int columns[G];
      for (int g = 0; g < G; ++g) columns[g] = Cell::input_delta(g);
      gradients.template outer<Edge>(call_.x, p_.I, columns, 0, G, call_.dw_ih, job_.dw_ih);
    }
    for (int phase = 0; phase < Cell::kPhases && call_.dw_hh.data != nullptr; ++phase) {
      int columns[G];
      const int first = Cell::phase_first(phase), gates = Cell::phase_gates(phase);
      for (int g = 0; g < gates; ++g) columns[g] = Cell::recurrent_delta(first + g);
      const int64_t slot = phase == 0 ? p_.reverse : 0;
      const Sequence inputs{const_cast<Row*>(static_cast<const Row*>(job_.inputs[phase])) +
                                slot * p_.B * job_.ld_state,
                            p_.B * job_.ld_state, job_.ld_state};
      gradients.template outer<Row>(inputs, p_.H, columns, first, gates, call_.dw_hh, job_.dw_hh);
    }
    for (int g = 0; g < G; ++g) {
      gradients.bias(Cell::input_delta(g), g, call_.db_ih);
      gradients.bias(Cell::recurrent_delta(g), g, call_.db_hh);
    }
    if (call_.dx.data != nullptr) {
      gradients.input(static_cast<const Panel*>(job_.packed_input), G, p_.I, call_.dx,
                      call_.accumulate_dx);
    }
  }

  // --- addresses ---

  // Units that a vector from `unit` on holds; the last panel may have vectors without any.
  FUSEDRNN_MEMBER int lanes(int64_t unit) const {
    const int64_t left = p_.H - unit;
    return left >= W ? W : left > 0 ? static_cast<int>(left) : 0;
  }
  FUSEDRNN_MEMBER const uint8_t* flags_at(int64_t step) const {
    return call_.flags == nullptr ? nullptr : call_.flags + slots_.time(step) * p_.B;
  }
  FUSEDRNN_MEMBER Real* carry_row(int s, int64_t b) const {
    return static_cast<Real*>(job_.carry[s]) + b * job_.ld_state;
  }
  FUSEDRNN_MEMBER Row* delta_row(int64_t time, int64_t b) const {
    return static_cast<Row*>(job_.delta) + (time * p_.B + b) * job_.ld_delta;
  }
  FUSEDRNN_MEMBER const typename F::State* h_row(int64_t slot, int64_t b) const {
    return static_cast<const typename F::State*>(job_.states[0]) +
           (slot * p_.B + b) * job_.ld_state;
  }
  FUSEDRNN_MEMBER const Real* state_row(int s, int64_t slot, int64_t b) const {
    return static_cast<const Real*>(job_.states[s]) + (slot * p_.B + b) * job_.ld_state;
  }
  FUSEDRNN_MEMBER const Saved* saved_at(int64_t slot, int64_t b, int64_t unit) const {
    return static_cast<const Saved*>(job_.saved) +
           ((slot * p_.B + b) * job_.panels + unit / U) * S * U + unit % U;
  }
  FUSEDRNN_MEMBER V load_dy(int64_t time, int64_t b, int64_t unit, int n) const {
    const Edge* src = static_cast<const Edge*>(call_.dy.data) + time * call_.dy.t_stride +
                      b * call_.dy.b_stride + unit;
    return n == W ? V::load(src) : V::load(src, n);
  }

  const BackwardJob& job_;
  const BackwardCall& call_;
  const Problem& p_;
  const Slots slots_;
  const int thread_, threads_, group_;
  const Range rows_;    // sequences of this thread
  const Range panels_;  // of kVectors vectors of units
  typename F::MatrixUnit::Registers registers_;
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
