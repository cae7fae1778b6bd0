// What a thread of a backward pass does for every cell alike: packing, the products of the walk,
// the states' gradients at its two ends.
#pragma once

#include "cpu/kernels/context.h"
#include "cpu/kernels/pack_cell.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Vectors in a panel of the plain products.
constexpr int kWidePanel = 4;

// Where a step's arrays lie.
struct BackwardStep {
  int64_t number, time, entering;
  // Those that live at this step, or that live at the following one, whose product they get; and
  // the latter alone, unless this is the last step.
  Range rows, following;
  const uint8_t* flags;            // of this step, or null
  const uint8_t* following_flags;  // of the following one, or null
  bool shows_states;               // whether there are gradients of every step's states beside dy

  template <class Context>
  FUSEDRNN_MEMBER BackwardStep(const Context& context, int64_t step)
      : number(step),
        time(context.slots.time(step)),
        entering(context.kept_slot(context.slots.entering(step))),
        rows(context.walked(step)),
        following(step + 1 < context.p.T ? context.walked(step + 1) : Range{0, 0}),
        flags(context.flags_at(step)),
        following_flags(context.flags_at(step + 1)),
        shows_states(false) {
    if (rows.size() < following.size()) rows = following;
    for (const Sequence& dy : context.call.dstate_y) shows_states |= dy.data != nullptr;
  }
};

// Steps that are walked before the gradients of the parameters take them in, in the order of time.
struct Chunk {
  int64_t begin, end;
  bool first, last;  // of the walk

  FUSEDRNN_MEMBER int64_t steps() const { return end - begin; }
};

template <class F>
struct BackwardContext : Context<F, BackwardJob> {
  using Base = Context<F, BackwardJob>;
  using Base::job, Base::p;
  using typename Base::Real, typename Base::Row, typename Base::V;
  static constexpr int kPanel = kRecurrentPanel * Base::W;
  static constexpr int kSums = kTileSums<F, kRecurrentPanel>;

  BackwardContext(const BackwardJob& its_job, int thread)
      : Base(its_job, thread, kPanel, true), delta_stride(job.ld_delta * this->sequences.step) {}

  // Rows that a step has anything to do with.
  FUSEDRNN_MEMBER Range walked(int64_t step) const {
    return job.all_rows ? Range{0, this->sequences.count} : this->living(step);
  }

  // The chunk that begins with a step, going backward.
  FUSEDRNN_MEMBER void enter_chunk(int64_t step) {
    const int64_t time = this->slots.time(step);
    chunk.begin = time - time % job.chunk_steps;
    chunk.end = p.T - chunk.begin < job.chunk_steps ? p.T : chunk.begin + job.chunk_steps;
    chunk.first = step == p.T - 1;
    chunk.last = step + 1 == chunk.steps();
  }

  FUSEDRNN_MEMBER Real* carry_row(int s, int64_t row) const {
    return static_cast<Real*>(job.carry[s]) + this->state_offset(0, row);
  }
  FUSEDRNN_MEMBER Real* resets_row(int s, int64_t row) const {
    return static_cast<Real*>(job.resets[s]) + this->state_offset(0, row);
  }
  FUSEDRNN_MEMBER Real* flow_row(int s, int64_t step, int64_t row) const {
    return static_cast<Real*>(job.flow[s]) + this->state_offset(step & (job.flow_slots - 1), row);
  }
  // A state that was cut: its gradient is that of the reset state.
  FUSEDRNN_MEMBER void add_to_reset(int s, int64_t row, int64_t unit, V gradient) const {
    if (job.resets[s] == nullptr) return;
    Real* const sum = resets_row(s, row) + unit;
    (V::load(sum) + gradient).store(sum);
  }
  FUSEDRNN_MEMBER Row* delta_at_place(int64_t time, int64_t place) const {
    // The step that follows a chunk lies behind it, or in reverse before it.
    const int64_t first = chunk.begin - (p.reverse && job.chunk_steps < p.T);
    return static_cast<Row*>(job.delta) + ((time - first) * p.B + place) * job.ld_delta;
  }
  // Of the thread's rows, which lie delta_stride apart.
  FUSEDRNN_MEMBER Row* delta_row(int64_t time, int64_t row) const {
    return delta_at_place(time, this->sequences.place(row));
  }
  // Where the states of a slot lie, or gates and what stages pass on of a time.
  FUSEDRNN_MEMBER int64_t kept_slot(int64_t slot) const {
    return p.lean ? slot - chunk.begin : slot;
  }
  // A vector of a block of gradients from `unit` on. Products read what fills up the block: zeros,
  // not the gradients of lanes beyond the last unit, which are NaN where x was infinite.
  FUSEDRNN_MEMBER void store_delta(Row* dst, V gradient, int64_t unit, int64_t units) const {
    const int lanes = lanes_at<V>(unit, units), filled = lanes_at<V>(unit, F::padded(units));
    if (lanes == V::width) {
      gradient.store(dst);
    } else {
      if (F::kDepthUnit > 1) V::zero().store(dst, filled);
      gradient.store(dst, lanes);
    }
  }
  // Numbers along k in the product of a stage's deltas, and from gate to gate. Of several heads
  // each gate's numbers follow those of the one before.
  FUSEDRNN_MEMBER int64_t delta_depth(const ProductShape& product) const {
    if (has_heads(product)) return product.gates * depth_of(p, product);
    return (product.gates - 1) * job.delta_block + F::padded(extent(p, product.units));
  }
  FUSEDRNN_MEMBER int64_t gate_depth(const ProductShape& product) const {
    return has_heads(product) ? depth_of(p, product) : job.delta_block;
  }
  FUSEDRNN_MEMBER bool has_heads(const ProductShape& product) const {
    return heads_of(p, product) > 1;
  }

  const int64_t delta_stride;
  Chunk chunk{};
};

// One gate's rows of a product's weights, as block `index` of every panel of `depth` numbers.
template <int Vectors, class F>
FUSEDRNN_INLINE void pack_gate(const BackwardContext<F>& context, const ProductShape& product,
                               int gate, int index, int64_t depth, void* packed) {
  const Matrix& w = context.call.parameters[product.weights];
  const int64_t units = extent(context.p, product.units);
  const int64_t columns = depth_of(context.p, product);
  constexpr int64_t kWidth = Vectors * F::V::width;
  const auto* const rows = static_cast<const typename F::Edge*>(w.data) + gate * units * w.stride;
  auto* const panels =
      static_cast<typename F::Panel*>(packed) + index * context.gate_depth(product) * kWidth;
  if (!context.has_heads(product)) {
    return pack_columns<F, Vectors>(rows, w.stride, units, columns,
                                    context.share.of_all(blocks_of(columns, kWidth)),
                                    depth * kWidth, panels);
  }
  // The rows of a head's units.
  for (int64_t head = 0; head < context.p.heads; ++head) {
    const int64_t all = columns / kWidth;  // whole panels
    pack_columns<F, Vectors>(rows + head * columns * w.stride, w.stride, columns, columns,
                             context.share.of_all(all), depth * kWidth,
                             panels + head * all * depth * kWidth);
  }
}

// The thread's share of the weights as the products of gradients read them.
template <class F>
FUSEDRNN_ONCE void pack_backward(const BackwardContext<F>& context) {
  const CellShape& shape = context.shape;
  const bool packs = !context.job.single_row;
  for (int i = 0; i < shape.stage_count && packs; ++i) {
    const ProductShape& product = shape.stages[i].product;
    for (int g = 0; g < product.gates; ++g) {
      pack_gate<kRecurrentPanel>(context, product, product.first + g, g,
                                 context.delta_depth(product), context.job.transposed[i]);
    }
  }
  pack_vectors<F>(context.p, shape, context.call.parameters, context.share, context.job.vectors);
  if (context.p.lean) pack_cell<F>(context.job.again, context.share);
  if (context.call.dx.data == nullptr || !packs) return;
  for (int g = 0; g < shape.gates; ++g) {
    pack_gate<kWidePanel>(context, shape.input, shape.input.first + g, shape.input_delta[g],
                          context.delta_depth(shape.input), context.job.input);
  }
}

// sums (+)= row x w[.., from `column` on], of N vectors, as run_tile() computes them from panels.
template <class F, int N>
FUSEDRNN_INLINE void multiply_row(const typename F::Row* row, const Matrix& w, int64_t depth,
                                  const typename F::Edge* first, int64_t columns, bool add,
                                  typename F::Real* sums) {
  using V = typename F::V;
  constexpr int W = V::width, D = F::Dot::kDepth;
  typename F::Dot::Sum acc[1][N];
  FUSEDRNN_UNROLL
  for (int n = 0; n < N; ++n) acc[0][n] = add ? V::load(sums + n * W) : V::zero();
  const auto add_rows = [&](auto& its_sums, int64_t begin, int64_t end) FUSEDRNN_LAMBDA {
    for (int64_t k = begin; k < end; k += D) {
      const typename F::Edge* group[D];
      FUSEDRNN_UNROLL
      for (int d = 0; d < D; ++d) group[d] = k + d < depth ? first + (k + d) * w.stride : nullptr;
      alignas(64) typename F::Panel weights[N * W * D];
      pack_group<F, N>(group, 0, columns, weights);
      const typename F::Dot::Operand x = F::Dot::broadcast(row + k);
      FUSEDRNN_UNROLL
      for (int n = 0; n < N; ++n) {
        its_sums[0][n] = F::Dot::add(its_sums[0][n], x, F::Dot::load(weights + n * W * D));
      }
    }
  };
  for_groups<typename F::Dot>(acc, F::padded(depth), add_rows);
  FUSEDRNN_UNROLL
  for (int n = 0; n < N; ++n) acc[0][n].store(sums + n * W);
}

// Of the only row there is, a tile's sums of panels of so many vectors: of the weights' rows of
// each gate with the deltas of its block, `blocks` or in the order of the gates, block by block.
// Packing what serves one row costs more than its products.
template <class F>
FUSEDRNN_ONCE void multiply_single_row(const BackwardContext<F>& context,
                                       const ProductShape& product, const int* blocks,
                                       const typename F::Row* deltas, int vectors, const Tile& tile,
                                       typename F::Real* sums) {
  constexpr int N = kWidePanel * tile_panels<F>(1, kWidePanel);
  static_assert(N >= kRecurrentPanel * tile_panels<F>(1, kRecurrentPanel));
  constexpr int64_t kWidth = int64_t{N} * F::V::width;
  const Matrix& w = context.call.parameters[product.weights];
  const int64_t units = extent(context.p, product.units), panel = int64_t{vectors} * F::V::width;
  const int64_t column = tile.panel * panel, left = depth_of(context.p, product) - column;
  const int64_t columns = left < tile.panels * panel ? left : tile.panels * panel;
  for (int block = 0; block < product.gates; ++block) {
    int gate = 0;
    while ((blocks == nullptr ? gate : blocks[gate]) != block) ++gate;
    const typename F::Row* const row = deltas + block * context.job.delta_block;
    const auto* const first =
        row_of<const typename F::Edge>(w, (product.first + gate) * units) + column;
    if (columns == kWidth) {
      multiply_row<F, N>(row, w, units, first, kWidth, block > 0, sums);
    } else {
      multiply_row<F, N>(row, w, units, first, columns, block > 0, sums);
    }
  }
}

// From the gradients of what w_hh multiplied to those of what it was before its mask.
template <class F>
FUSEDRNN_ONCE void mask_gradient(const BackwardContext<F>& context, const Tile& tile,
                                 typename F::Real* sums) {
  using V = typename F::V;
  constexpr int kPanel = BackwardContext<F>::kPanel;
  for (int64_t panel = tile.panel; panel < tile.panel + tile.panels; ++panel) {
    for (int64_t row = tile.row; row < tile.row + tile.rows; ++row, sums += kPanel) {
      const auto mask = context.mask_rows(context.job.noise.operand, row, panel * kPanel);
      for (int i = 0; i < kPanel; i += V::width) {
        context.times_mask(V::load(sums + i), mask.data + i).store(sums + i);
      }
    }
  }
}

// Of several heads: one product a gate, with the deltas of the units of a panel's head.
template <class F>
FUSEDRNN_ONCE void multiply_heads(const BackwardContext<F>& context, const ProductShape& shape,
                                  const typename F::Panel* weights, const typename F::Row* deltas,
                                  const Tile& tile, Product<F>& product, typename F::Real* sums) {
  using V = typename F::V;
  constexpr int kPanel = BackwardContext<F>::kPanel;
  alignas(64) typename F::Real of_gate[BackwardContext<F>::kSums];
  const HeadPanels heads(context.p, shape, kPanel);
  const int64_t stride = context.delta_depth(shape) * kPanel;
  const int64_t numbers = tile.panels * product.out_panel + tile.repeated * kPanel;
  product.depth = heads.depth;
  for (int g = 0; g < shape.gates; ++g) {
    typename F::Real* const out = g == 0 ? sums : of_gate;
    Tile part = tile;
    for (int64_t panel = tile.panel; panel < tile.panel + tile.panels; panel += part.panels) {
      part = heads.part(tile, panel);
      product.set_weights(weights + g * heads.depth * kPanel, 0, stride, part);
      product.out = out + (panel - tile.panel) * product.out_panel;
      product.set_rows(deltas + g * context.job.delta_block + heads.first_column(panel),
                       context.delta_stride);
      run_product(product, kRecurrentPanel, kRecurrentPanel, part);
    }
    for (int64_t i = 0; g > 0 && i < numbers; i += V::width) {
      (V::load(sums + i) + V::load(of_gate + i)).store(sums + i);
    }
  }
}

// The gradients of what stage `source` multiplied at `time`, from the deltas of its gates.
template <class F>
FUSEDRNN_ONCE void multiply_deltas(const BackwardContext<F>& context, int source, int64_t time,
                                   const Tile& tile, typename F::Real* sums,
                                   const Meanwhile* meanwhile = nullptr) {
  constexpr int kPanel = BackwardContext<F>::kPanel;
  const StageShape& stage = context.shape.stages[source];
  const int64_t depth = context.delta_depth(stage.product);
  const auto* const weights = static_cast<const typename F::Panel*>(context.job.transposed[source]);
  const typename F::Row* const deltas =
      context.delta_row(time, tile.first_row()) + stage.first_delta * context.job.delta_block;
  Product<F> product;
  product.out_row = kPanel;
  product.out_panel = tile.rows * kPanel;
  product.meanwhile = meanwhile;
  if (context.job.single_row) {
    multiply_single_row(context, stage.product, nullptr, deltas, kRecurrentPanel, tile, sums);
  } else if (context.has_heads(stage.product)) {
    multiply_heads(context, stage.product, weights, deltas, tile, product, sums);
  } else {
    product.depth = depth;
    product.set_weights(weights, 0, depth * kPanel, tile);
    product.out = sums;
    product.set_rows(deltas, context.delta_stride);
    run_product_of_columns(product, kRecurrentPanel, depth_of(context.p, stage.product), tile);
  }
  if (context.job.noise.operand != nullptr && context.multiplies_recurrent(source)) {
    mask_gradient(context, tile, sums + tile.repeated * kPanel);
  }
}

// carry = the gradients of the states after the last step; of the reset states there are none yet.
template <class F>
FUSEDRNN_ONCE void begin_carry(const BackwardContext<F>& context) {
  using V = typename F::V;
  constexpr int kPanel = BackwardContext<F>::kPanel;
  for (int s = 0; s < context.shape.state_count; ++s) {
    const Matrix& last = context.call.dstate_n[s];
    const int64_t units = extent(context.p, context.shape.states[s].size);
    const Range panels = context.panels(context.shape.states[s].size);
    for (int64_t row = 0; row < context.sequences.count; ++row) {
      const auto* src = row_of<const typename F::Edge>(last, context.sequences.number(row));
      for (int64_t unit = panels.begin * kPanel; unit < panels.end * kPanel; unit += V::width) {
        load_columns<V>(src, unit, units).store(context.carry_row(s, row) + unit);
        if (context.job.resets[s] != nullptr) {
          V::zero().store(context.resets_row(s, row) + unit);
        }
      }
    }
  }
}

// The gradients of the initial states: the carry, and for h what its product brings, which is the
// reset state's where the first step cuts.
template <class F>
struct InitialState {
  const BackwardContext<F>& context;
  int state;
  bool multiplied;  // whether the rows are multiplied by the first step

  FUSEDRNN_ONCE void run(const Tile& tile) const {
    using V = typename F::V;
    const uint8_t* flags = context.flags_at(0);
    const int64_t units = extent(context.p, context.shape.states[state].size);
    const Matrix& out = context.call.dstate_0[state];
    alignas(64) typename F::Real sums[BackwardContext<F>::kSums]{};
    if (multiplied) {
      multiply_deltas(context, context.shape.h_stage, context.slots.time(0), tile, sums);
    }
    for_vectors<V>(tile, sums + tile.repeated * BackwardContext<F>::kPanel,
                   [&](V product, int64_t unit, int64_t row) FUSEDRNN_LAMBDA {
                     const int lanes = lanes_at<V>(unit, units);
                     if (lanes == 0) return;
                     if (multiplied && is_cut(flags, row)) {
                       context.add_to_reset(state, row, unit, product);
                     }
                     if (out.data == nullptr) return;
                     V d = V::load(context.carry_row(state, row) + unit);
                     if (multiplied && is_multiplied(flags, row)) d = d + product;
                     const int64_t b = context.sequences.number(row);
                     d.store(row_of<typename F::Edge>(out, b) + unit, lanes);
                   });
  }
};

template <class F>
FUSEDRNN_ONCE void end_carry(const BackwardContext<F>& context,
                             typename F::MatrixUnit::Registers& registers) {
  for (int s = 0; s < context.shape.state_count; ++s) {
    const bool resets = s == 0 && context.job.resets[0] != nullptr;
    if (context.call.dstate_0[s].data == nullptr && !resets) continue;
    const bool multiplied = s == 0 && context.shape.h_stage >= 0;
    const Range living = multiplied ? context.walked(0) : Range{0, 0};
    const Range panels = context.panels(context.shape.states[s].size);
    for_products<F>(registers, kRecurrentPanel, InitialState<F>{context, s, true}, panels, living);
    for_products<F>(registers, kRecurrentPanel, InitialState<F>{context, s, false}, panels,
                    {living.end, context.sequences.count});
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
