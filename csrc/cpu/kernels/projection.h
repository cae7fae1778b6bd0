// The input projection of a chunk of steps: a = W_ih x + b_ih.
#pragma once

#include "cpu/kernels/forward_context.h"
#include "cpu/kernels/quantised.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// The inputs of `steps` steps as the products read them, zero beyond I.
template <class Cell, class F>
void stage(const ForwardContext<Cell, F>& f, int64_t step, int64_t steps) {
  using V = typename F::V;
  typename F::Row* dst = f.staged;
  for (int64_t s = step; s < step + steps; ++s) {
    for (int64_t b = 0; b < f.rows.end - f.rows.begin; ++b, dst += f.job.ld_staged) {
      const typename F::Edge* src = f.x_row(s, b);
      if constexpr (F::kQuantised) {
        f.staged_scales[(dst - f.staged) / f.job.ld_staged] = quantise_row<F>(src, f.p.I, dst);
      } else {
        for (int64_t i = 0; i < F::padded(f.p.I); i += V::width) {
          F::round_operand(load_columns<V>(src, i, f.p.I)).store(dst + i);
        }
      }
    }
  }
}

// The tiles of the projection; rows are (step, sequence).
template <class Cell, class F>
struct Projection {
  using Context = ForwardContext<Cell, F>;
  static constexpr int W = Context::W;
  static constexpr int N = Cell::kGates * Cell::kUnitVectors;

  const Context& f;
  typename Context::Packed weights;
  int64_t first_step;

  void run(Tile tile) const {
    Product<F> product;
    product.depth = F::padded(f.p.I);
    product.set_weights(weights.data, weights.first, panel_size<F>(f.p.I, N), tile);
    product.bias_stride = N * W;
    product.bias = Context::template to<typename F::Real>(f.job.packed_bias_ih) +
                   tile.panel * product.bias_stride;
    product.out_row = N * W;
    product.out_panel = f.projection_rows * N * W;
    product.out = f.projection_at(tile.panel, tile.first_row());
    if constexpr (F::kQuantised) {
      product.scale = f.job.quantised_input.scale + tile.panel * product.bias_stride;
      product.start = f.job.quantised_input.start + tile.panel * product.bias_stride;
      product.row_scale = f.staged_scales + tile.first_row();
    }
    set_rows(tile, product);
    run_product<N>(product, tile);
  }

  FUSEDRNN_MEMBER void set_rows(Tile tile, Product<F>& product) const {
    if constexpr (F::kStage) {
      product.set_rows(f.staged + tile.first_row() * f.job.ld_staged, f.job.ld_staged);
    } else {
      const int64_t sequences = f.rows.end - f.rows.begin;
      int64_t step = first_step + tile.row / sequences;
      int64_t b = tile.row % sequences;
      for (int64_t m = 0; m < tile.rows; ++m) {
        product.rows[m] = f.x_row(step, b);
        if (++b == sequences) {
          b = 0;
          ++step;
        }
      }
    }
  }
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
