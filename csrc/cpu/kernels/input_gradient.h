// dx = delta W_ih, a block of rows at a time.
#pragma once

#include "cpu/kernels/block_rows.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class F>
struct InputTiles {
  using Edge = typename F::Edge;
  using Real = typename F::Real;
  using V = typename F::V;
  static constexpr int W = V::width;
  static constexpr int kWidth = kWidePanel * W;
  // Rows are those of the block that exist. A matrix unit takes rows as they lie in memory, all.
  static constexpr bool kAll = F::MatrixUnit::kPresent;

  const BackwardContext<F>& context;
  const BlockRows<F>& block;

  FUSEDRNN_MEMBER int64_t count() const { return kAll ? block.all.size() : block.existing_count; }

  void run(const Tile& tile) const {
    if (kAll && !any_exists(tile)) return;
    alignas(64) Real sums[kTileSums<F, kWidePanel>];
    if (context.job.single_row) {
      multiply_single_row(context, context.shape.input, context.shape.input_delta,
                          context.delta_at_place(0, 0), kWidePanel, tile, sums);
    } else {
      multiply(tile, sums);
    }
    const Real* sum = sums + tile.repeated * kWidth;
    for (int64_t panel = tile.panel; panel < tile.panel + tile.panels; ++panel) {
      for (int64_t row = tile.row; row < tile.row + tile.rows; ++row, sum += kWidth) {
        if constexpr (kAll) {
          const Site site = site_of(row);
          if (exists(site)) store(sum, panel * kWidth, dx_row(site));
        } else {
          store(sum, panel * kWidth, block.dx[block.existing[row]]);
        }
      }
    }
  }

  // dx of the thread's share of the rows that do not exist.
  FUSEDRNN_ONCE void clear_missing() const {
    const Range own = context.share.of_all(block.all.size());
    for (int64_t row = block.all.begin + own.begin; row < block.all.begin + own.end; ++row) {
      const Site site{row / context.p.B, row % context.p.B};
      if (exists(site)) continue;
      Edge* const dst = dx_row(site);
      for (int64_t i = 0; i < context.p.I; i += W) {
        V::zero().store(dst + i, lanes_at<V>(i, context.p.I));
      }
    }
  }

 private:
  FUSEDRNN_MEMBER void multiply(const Tile& tile, Real* sums) const {
    Product<F> product;
    product.depth = context.delta_depth(context.shape.input);
    product.set_weights(static_cast<const typename F::Panel*>(context.job.input), 0,
                        product.depth * kWidth, tile);
    product.out = sums;
    product.out_row = kWidth;
    product.out_panel = tile.rows * kWidth;
    if constexpr (kAll) {
      const int64_t row = block.all.begin + tile.first_row();
      product.set_rows(context.delta_at_place(row / context.p.B, row % context.p.B),
                       context.job.ld_delta);
    } else {
      for (int64_t m = 0; m < tile.rows; ++m) {
        product.rows[m] = block.deltas[block.existing[tile.row + m]];
      }
    }
    run_product_of_columns(product, kWidePanel, context.p.I, tile);
  }

  struct Site {
    int64_t t, b;
  };

  // Of a row as it lies in memory.
  FUSEDRNN_MEMBER Site site_of(int64_t row) const {
    const int64_t at = block.all.begin + row;
    return {at / context.p.B, context.job.order.number(at % context.p.B)};
  }
  FUSEDRNN_MEMBER bool exists(const Site& site) const {
    return is_valid(context.call.flags, site.t * context.p.B + site.b);
  }
  FUSEDRNN_MEMBER bool any_exists(const Tile& tile) const {
    bool any = false;
    for (int64_t m = 0; m < tile.rows && !any; ++m) any = exists(site_of(tile.row + m));
    return any;
  }
  FUSEDRNN_MEMBER Edge* dx_row(const Site& site) const {
    const Sequence& dx = context.call.dx;
    return static_cast<Edge*>(dx.data) + site.t * dx.t_stride + site.b * dx.b_stride;
  }

  FUSEDRNN_MEMBER void store(const Real* sum, int64_t column, Edge* dst) const {
    const int64_t columns = context.p.I;
    for (int v = 0; v < kWidePanel && column < columns; ++v, column += W) {
      const int n = static_cast<int>(columns - column < W ? columns - column : W);
      V d = V::load(sum + v * W);
      if (context.call.accumulate_dx) d = d + V::load(dst + column, n);
      d.store(dst + column, n);
    }
  }
};

// dx[row, :] (+)= delta[row, the gradients of a] packed, panels of inputs, of a block's rows.
template <class F>
FUSEDRNN_ONCE void input_gradient(const BackwardContext<F>& context,
                                  typename F::MatrixUnit::Registers& registers,
                                  const BlockRows<F>& block) {
  const InputTiles<F> tiles{context, block};
  const int64_t panels = blocks_of(context.p.I, tiles.kWidth);
  const bool by_panel = panels >= context.share.threads;
  for_products<F>(registers, kWidePanel, tiles,
                  by_panel ? context.share.of_all(panels) : Range{0, panels},
                  by_panel ? Range{0, tiles.count()} : context.share.of_all(tiles.count()));
  if (block.missing() > 0 && !context.call.accumulate_dx) tiles.clear_missing();
}

// The same of some steps, both ends included.
template <class F>
FUSEDRNN_ONCE void input_gradient_of_steps(const BackwardContext<F>& context,
                                           typename F::MatrixUnit::Registers& registers,
                                           int64_t first, int64_t last) {
  const int64_t from = context.slots.time(first), to = context.slots.time(last), B = context.p.B;
  const int64_t end = ((from < to ? to : from) + 1) * B;
  for (int64_t row = (from < to ? from : to) * B; row < end; row += kBlockRows) {
    const Range rows{row, end - row < kBlockRows ? end : row + kBlockRows};
    input_gradient(context, registers, BlockRows<F>(context, rows));
  }
}

// The same of all blocks, each once the run before has added to it.
template <class F>
FUSEDRNN_ONCE void input_gradient_in_turn(const BackwardContext<F>& context,
                                          typename F::MatrixUnit::Registers& registers) {
  const Links& links = context.job.links;
  const int64_t blocks = row_blocks(context);
  for (int64_t i = 0; i < blocks; ++i) {
    wait_for(*links.dx_before, i + 1);
    const int64_t number = links.dx_reverse == context.p.reverse ? i : blocks - 1 - i;
    input_gradient(context, registers, BlockRows<F>(context, number));
    context.report_done(i + 1);
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
