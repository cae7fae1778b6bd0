// One stage of one step, tile by tile: its product, where it has one, and the cell's equations on
// it while it is in the first-level cache.
#pragma once

#include "cpu/kernels/narrow_tile.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// How the projections of a chunk lie.
template <class F>
FUSEDRNN_MEMBER void find_projection(const ForwardContext<F>& context,
                                     ForwardArrays<typename F::Real>& arrays) {
  arrays.projection_row = context.projection_vectors() * F::V::width;
  arrays.projection_panel = context.projection_rows * arrays.projection_row;
}

// What of a stage's arrays is the same in every step, from the thread's first row and unit on. Null
// is what the format stores as other numbers than maps compute with.
template <class F>
FUSEDRNN_ONCE void find_arrays(const ForwardContext<F>& context, int index,
                               ForwardArrays<typename F::Real>& arrays) {
  using Real = typename F::Real;
  const KernelShape& shape = context.shape;
  const ForwardJob& job = context.job;
  const StageShape& stage = shape.stages[index];
  const int64_t unit = context.panels(stage.units).begin * context.panel_units;
  arrays = {};
  arrays.problem = &context.p;
  arrays.unit = unit;
  if (stage.units == 'H') {
    find_projection(context, arrays);
    arrays.vectors = static_cast<const Real*>(job.packed.vectors) + unit * shape.vector_count;
    arrays.saved.stride = context.saved_stride();
    arrays.candidate = context.mask_rows(job.noise.candidate, 0, unit);
  }
  for (int s = 0; s < shape.state_count; ++s) {
    if (shape.states[s].size != stage.units) continue;
    arrays.prev[s].stride = arrays.next[s].stride = context.row_stride;
    arrays.zoneout[s] = context.mask_rows(job.noise.zoneout[s], 0, unit);
    if constexpr (kSame<typename F::Edge, Real>) {
      const auto* const reset = static_cast<const Real*>(context.call.reset_state[s].data);
      if (reset != nullptr) arrays.reset[s] = reset + unit;
    }
  }
  if (stage.passes_row || stage.reads_row) {
    arrays.passed = {static_cast<Real*>(job.passed) + context.state_offset(0, 0) + unit,
                     context.row_stride};
  }
}

// What each step has in other places.
template <class F>
FUSEDRNN_MEMBER void move_arrays(const ForwardContext<F>& context, const ForwardStep& step,
                                 int index, ForwardArrays<typename F::Real>& arrays) {
  using Real = typename F::Real;
  const KernelShape& shape = context.shape;
  const ForwardJob& job = context.job;
  const StageShape& stage = shape.stages[index];
  const int64_t unit = arrays.unit;
  arrays.flags = step.flags;
  arrays.next_flags = step.next_flags;
  if (stage.units == 'H') {
    arrays.projection =
        context.projection_at(context.h_panels.begin, step.chunk_row, arrays.projection_row);
    if (job.kept.saved != nullptr && shape.saved_bytes == sizeof(Real)) {
      arrays.saved.data = static_cast<Real*>(job.kept.saved) +
                          context.saved_offset(step.of_step, 0) + unit * shape.saved;
    }
  }
  for (int s = 0; s < shape.state_count; ++s) {
    if (shape.states[s].size != stage.units) continue;
    if (s > 0 || kSame<typename F::State, Real>) {
      arrays.prev[s].data = context.state_row(s, step.entering, 0) + unit;
      arrays.next[s].data = context.state_row(s, step.leaving, 0) + unit;
    }
    if constexpr (kSame<typename F::Edge, Real>) {
      if (s == 0) arrays.y = context.template plain_rows<Real>(context.call.y, step.time, unit);
      if (step.shows_states) {
        arrays.state_y[s] =
            context.template plain_rows<Real>(context.call.state_y[s], step.time, unit);
      }
    }
  }
  if constexpr (kSame<typename F::Passed, Real>) {
    if (stage.passes) {
      arrays.passed = {context.passed_row(index + 1, step.of_step, 0) + unit, context.row_stride};
    }
  }
}

// What w_hh multiplies in the place of the thread's own part of what stage `index` does: of h in a
// slot, or of what was passed on to it at a step.
template <class F>
FUSEDRNN_ONCE void mask_operand(const ForwardContext<F>& context, int index, Range rows,
                                int64_t slot) {
  using V = typename F::V;
  if constexpr (!F::kQuantised) {
    const StageShape& stage = context.shape.stages[index];
    const bool of_h = stage.operand == cells::Operand::h;
    const int64_t units = extent(context.p, stage.product.depth), U = context.panel_units;
    const Range panels = context.panels(stage.product.depth);
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      typename F::Row* const operand = context.operand_row(index, slot, row);
      const auto mask = context.mask_rows(context.job.noise.operand, row, 0);
      for (int64_t unit = panels.begin * U; unit < panels.end * U; unit += V::width) {
        const V v = of_h ? context.load_state(0, slot, row, unit) : V::load(operand + unit);
        const V masked = context.times_mask(v, mask.data == nullptr ? nullptr : mask.data + unit);
        context.store_operand(operand, unit, units, F::round_operand(masked));
      }
    }
  }
}

// The product of a stage, tile by tile: what is the same in every step is found once a pass.
template <class F>
class StageProduct {
 public:
  using Real = typename F::Real;
  using Row = typename F::Row;

  FUSEDRNN_ONCE void find(const ForwardContext<F>& context, int index) {
    const StageShape& stage = context.shape.stages[index];
    packed_ = &context.job.packed.stages[index];
    operand_ = stage.operand;
    gates_ = stage.product.gates;
    vectors_ = stage_vectors(context.shape, stage);
    numbers_ = vectors_ * F::V::width;
    units_ = extent(context.p, stage.units);
    heads_ = HeadPanels(context.p, stage.product, context.panel_units);
    panel_size_ = panel_size<F>(heads_.depth, vectors_);
    row_stride_ = F::kQuantised ? context.job.ld_state : context.row_stride;
    product_.rows[0] = nullptr;
    product_.depth = F::padded(heads_.depth);
    product_.out_row = numbers_;
  }

  // Where a step's operands are.
  FUSEDRNN_MEMBER void move(const ForwardContext<F>& context, const ForwardStep& step, int index) {
    if constexpr (F::kQuantised) {
      rows_ = context.quantised;
      row_scales_ = context.quantised_scales;
    } else if (multiplies()) {
      const int64_t slot = operand_ == cells::Operand::h ? step.entering : step.of_step;
      rows_ = context.operand_row(index, slot, 0);
    }
  }
  FUSEDRNN_MEMBER void set_weights(Panels<F> weights) { weights_ = weights; }
  FUSEDRNN_MEMBER void set_meanwhile(const Meanwhile* meanwhile) { product_.meanwhile = meanwhile; }

  FUSEDRNN_MEMBER bool multiplies() const { return operand_ != cells::Operand::none; }
  FUSEDRNN_MEMBER int vectors() const { return vectors_; }  // in a panel
  FUSEDRNN_MEMBER int64_t numbers() const { return numbers_; }

  // `panel_numbers`: from the sums of a panel to those of the next one.
  FUSEDRNN_MEMBER void multiply(const Tile& tile, Real* sums, int64_t panel_numbers) {
    product_.out_panel = panel_numbers;
    if (heads_.panels == 0) return multiply_part(tile, 0, sums);
    Tile part = tile;
    for (int64_t panel = tile.panel; panel < tile.panel + tile.panels; panel += part.panels) {
      part = heads_.part(tile, panel);
      multiply_part(part, heads_.first_column(panel), sums + (panel - tile.panel) * panel_numbers);
    }
  }

 private:
  FUSEDRNN_MEMBER void multiply_part(const Tile& tile, int64_t column, Real* out) {
    product_.set_weights(weights_.data, weights_.first, panel_size_, tile);
    product_.set_columns(*packed_, tile.panel, numbers_);
    product_.out = out;
    const Row* const first = rows_ + tile.first_row() * row_stride_ + column;
    // Most often they are those of the tile before, which was of other panels.
    if (product_.rows[0] != first) product_.set_rows(first, row_stride_);
    if constexpr (F::kQuantised) product_.row_scale = row_scales_ + tile.first_row();
    run_product_of_units(product_, gates_, vectors_, units_, tile);
  }

  Panels<F> weights_{};
  const PackedProduct* packed_ = nullptr;
  cells::Operand operand_{};
  int gates_ = 0;
  int vectors_ = 0;
  int64_t units_ = 0;
  int64_t numbers_ = 0;
  HeadPanels heads_;
  int64_t panel_size_ = 0;
  const Row* rows_ = nullptr;
  int64_t row_stride_ = 0;
  const float* row_scales_ = nullptr;
  Product<F> product_;
};

// Of formats with a matrix unit.
template <class F>
using RestOfForward = RestOfMap<ForwardMapper<F>, ForwardMap<typename F::Real>,
                                F::MatrixUnit::kPresent ? kTileSums<F, kMostVectors> : 1>;

template <class F>
struct ForwardTiles {
  using Real = typename F::Real;
  using Edge = typename F::Edge;

  const ForwardContext<F>& context;
  const ForwardStep& step;
  int index;  // of the stage
  StageProduct<F>& product;
  ForwardMap<Real> map;
  ForwardMapper<F>& mapper;
  RestOfForward<F>& rest;  // who has run tiles of a matrix unit must finish it
  Rows<const Edge> fetched_y = find_fetched_y();

  void run(const Tile& tile) const {
    if constexpr (F::MatrixUnit::kPresent) {
      if (tile.by_matrix_unit()) {
        rest.next();
        return run_block(tile, [] FUSEDRNN_LAMBDA {});
      }
    }
    alignas(64) Real sums[kTileSums<F, kMostVectors>];
    multiply(tile, sums);
    mapper.run(tile, map, sums + tile.repeated * product.numbers());
  }

  // After rest.next(). `prepare` is called when the block before it is done.
  template <class Prepare>
  FUSEDRNN_MEMBER void run_block(const Tile& tile, const Prepare& prepare) const {
    product.set_meanwhile(rest.meanwhile());
    multiply(tile, rest.sums());
    product.set_meanwhile(nullptr);
    rest.finish();
    prepare();
    rest.begin(mapper, map, tile, product.numbers());
  }

  FUSEDRNN_MEMBER void multiply(const Tile& tile, Real* sums) const {
    if (!product.multiplies() || !any_valid(tile)) return;
    if (context.job.save && tile.rows > 1) fetch_results(tile);
    if (fetched_y.data != nullptr) fetch_y(tile);
    product.multiply(tile, sums, tile.rows * product.numbers());
  }

  // What is kept is written to memory that no cache holds: at this step, or where the product is
  // too short for that at the next one. Of a single row the hardware foresees it.
  FUSEDRNN_MEMBER void fetch_results(const Tile& tile) const {
    const int64_t ahead = tile.rows > kFetchingRows ? 0 : context.p.reverse ? -1 : 1;
    if (step.time + ahead < 0 || step.time + ahead >= context.p.T) return;
    const KernelShape& shape = context.shape;
    const StageShape& stage = shape.stages[index];
    const int64_t unit = tile.panel * context.panel_units;
    const int64_t units = tile.panels * context.panel_units;
    if (stage.units == 'H') {
      const int64_t bytes = static_cast<int64_t>(shape.saved_bytes), numbers = shape.saved;
      const int64_t first = context.saved_offset(step.of_step + ahead, tile.row) + unit * numbers;
      fetch_rows(static_cast<const char*>(context.job.kept.saved) + first * bytes,
                 context.saved_stride() * bytes, tile.rows, units * numbers * bytes);
    }
    for (int s = 0; s < shape.state_count; ++s) {
      if (shape.states[s].size != stage.units) continue;
      const int64_t bytes = s == 0 ? sizeof(typename F::State) : sizeof(Real);
      const void* const first =
          s == 0 ? static_cast<const void*>(context.h_row(step.leaving + ahead, tile.row) + unit)
                 : context.state_row(s, step.leaving + ahead, tile.row) + unit;
      fetch_rows(first, context.row_stride * bytes, tile.rows, units * bytes);
    }
  }

  // Inference writes y alone to memory that no cache holds. Stores leave in order, and where those
  // of other states queue up behind y's there is no room for what the next product begins with.
  FUSEDRNN_MEMBER Rows<const Edge> find_fetched_y() const {
    if (step.rows.size() <= kFetchingRows) return {};  // small steps notice a question
    const KernelShape& shape = context.shape;
    const bool waits = !context.job.save && shape.state_count > 1 &&
                       shape.states[0].last_stage == index &&
                       context.sequences.order.numbers == nullptr;
    if (!waits) return {};
    return context.template plain_rows<const Edge>(context.call.y, step.time, 0);
  }

  FUSEDRNN_MEMBER void fetch_y(const Tile& tile) const {
    constexpr int64_t kBytes = sizeof(Edge);
    const int64_t units = context.panel_units;
    fetch_rows(fetched_y.at(tile.row, tile.panel * units), fetched_y.stride * kBytes, tile.rows,
               tile.panels * units * kBytes);
  }

  FUSEDRNN_MEMBER bool any_valid(const Tile& tile) const {
    bool any = step.flags == nullptr;
    for (int64_t m = 0; m < tile.rows && !any; ++m) any = is_valid(step.flags, tile.row + m);
    return any;
  }
};

// Products alone, whose map takes several tiles at once: [panel][row][vectors].
template <class F>
struct SumTiles {
  const ForwardTiles<F>& tiles;
  typename F::Real* sums;
  int64_t numbers;  // of a panel and row
  Range panels;     // whose sums these are
  int64_t ahead;    // the panel that comes after them

  void run(const Tile& tile) const {
    if (!tiles.any_valid(tile)) return;
    const int64_t panel_numbers = tiles.step.rows.size() * numbers;
    Tile next = tile;
    if (tile.ahead == tile.panel) next.ahead = ahead;
    tiles.product.multiply(
        next, sums + (tile.panel - panels.begin) * panel_numbers + tile.first_row() * numbers,
        panel_numbers);
  }
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
