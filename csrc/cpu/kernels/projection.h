// The input projection of a chunk of steps: a = W_ih x + b_ih.
#pragma once

#include "cpu/kernels/forward_context.h"
#include "cpu/kernels/quantised.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Calls run(panels, packed) for the thread's panels of a product, each of so many vectors. Weights
// that serve a single step are packed a few panels at a time into a buffer that stays in the near
// cache.
template <class F, class Run>
FUSEDRNN_INLINE void for_packed(const ForwardContext<F>& context, const ProductShape& product,
                                int vectors, const void* packed, const Run& run) {
  using Panel = typename F::Panel;
  const Range panels = context.panels(product.units);
  if (F::kQuantised || context.job.stream.data == nullptr) {
    run(panels, Panels<F>{static_cast<const Panel*>(packed), 0});
    return;
  }
  if constexpr (!F::kQuantised) {
    const int group = tile_panels<F>(1, vectors);
    Panel* buffer = context.template part_of<Panel>(context.job.stream);
    for (int64_t begin = panels.begin; begin < panels.end; begin += group) {
      const Range some{begin, panels.end - begin < group ? panels.end : begin + group};
      pack_weights<F>(context.p, product, context.shape.unit_vectors,
                      context.call.parameters[product.weights], some, buffer);
      run(some, Panels<F>{buffer, begin});
    }
  }
}

// The inputs of `steps` steps as the products read them, zero beyond I.
template <class F>
FUSEDRNN_ONCE void stage_inputs(const ForwardContext<F>& context, int64_t step, int64_t steps) {
  using V = typename F::V;
  const int64_t I = context.p.I, stride = context.job.ld_staged;
  typename F::Row* dst = context.staged;
  for (int64_t s = step; s < step + steps; ++s) {
    for (int64_t b = context.share.rows.begin; b < context.share.rows.end; ++b, dst += stride) {
      const typename F::Edge* src = context.x_row(s, b);
      if constexpr (F::kQuantised) {
        context.staged_scales[(dst - context.staged) / stride] = quantise_row<F>(src, I, dst);
      } else {
        for (int64_t i = 0; i < F::padded(I); i += V::width) {
          F::round_operand(load_columns<V>(src, i, I)).store(dst + i);
        }
      }
    }
  }
}

// The tiles of the projection; rows are (step, sequence).
template <class F>
struct Projection {
  const ForwardContext<F>& context;
  Panels<F> weights;
  int64_t first_step;

  void run(const Tile& tile) const {
    const PackedProduct& packed = context.job.packed.input;
    const int64_t I = context.p.I;
    const int vectors = context.projection_vectors();
    const int64_t numbers = vectors * F::V::width;
    Product<F> product;
    product.depth = F::padded(I);
    product.set_weights(weights.data, weights.first, panel_size<F>(I, vectors), tile);
    product.set_columns(packed, tile.panel, numbers);
    product.out_row = numbers;
    product.out_panel = context.projection_rows * numbers;
    product.out = context.projection_at(tile.panel, tile.first_row(), numbers);
    if constexpr (F::kQuantised) product.row_scale = context.staged_scales + tile.first_row();
    set_rows(tile, product);
    run_product(product, vectors, tile);
  }

  FUSEDRNN_MEMBER void set_rows(const Tile& tile, Product<F>& product) const {
    if constexpr (F::kStage) {
      const int64_t stride = context.job.ld_staged;
      product.set_rows(context.staged + tile.first_row() * stride, stride);
    } else {
      const Range sequences = context.share.rows;
      int64_t step = first_step + tile.row / sequences.size();
      int64_t b = sequences.begin + tile.row % sequences.size();
      for (int64_t m = 0; m < tile.rows; ++m) {
        product.rows[m] = context.x_row(step, b);
        if (++b == sequences.end) {
          b = sequences.begin;
          ++step;
        }
      }
    }
  }
};

template <class F>
FUSEDRNN_ONCE void project_panels(const ForwardContext<F>& context,
                                  typename F::MatrixUnit::Registers& registers, int64_t step,
                                  int64_t steps, Range panels, Panels<F> weights) {
  for_products<F>(registers, context.p.B, context.projection_vectors(),
                  Projection<F>{context, weights, step}, panels,
                  {0, steps * context.share.rows.size()});
}

// The chunk that begins with `step`.
template <class F>
FUSEDRNN_ONCE void project_chunk(const ForwardContext<F>& context,
                                 typename F::MatrixUnit::Registers& registers, int64_t step) {
  const int64_t left = context.p.T - step;
  const int64_t steps = left < context.job.chunk_steps ? left : context.job.chunk_steps;
  if constexpr (F::kStage) stage_inputs(context, step, steps);
  for_packed(
      context, context.shape.input, context.projection_vectors(), context.job.packed.input.weights,
      [&](Range panels, Panels<F> weights)
          FUSEDRNN_LAMBDA { project_panels(context, registers, step, steps, panels, weights); });
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
