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

// The input of row number `number` of a chunk as the products read it, zero beyond I.
template <class F>
FUSEDRNN_ONCE void stage_input(const ForwardContext<F>& context, int64_t number,
                               const typename F::Edge* src) {
  using V = typename F::V;
  const int64_t I = context.p.I;
  typename F::Row* const dst = context.staged + number * context.job.ld_staged;
  if constexpr (F::kQuantised) {
    context.staged_scales[number] = quantise_row<F>(src, I, dst);
  } else {
    for (int64_t i = 0; i < F::padded(I); i += V::width) {
      F::round_operand(load_columns<V>(src, i, I)).store(dst + i);
    }
  }
}

// Steps of which all rows that live are projected together.
struct InputChunk {
  int64_t end_step = 0;
  int64_t rows = 0;
};

// The inputs of as many steps from `step` up to `end` as there is room for.
template <class F>
FUSEDRNN_ONCE InputChunk find_inputs(const ForwardContext<F>& context, int64_t step, int64_t end) {
  InputChunk chunk{step, 0};
  for (; chunk.end_step < end; ++chunk.end_step) {
    const Range rows = context.living(chunk.end_step);
    if (chunk.rows + rows.size() > context.projection_rows) break;
    context.wait_for_other(context.job.links.source, chunk.end_step + 1);
    const auto x = context.template caller_rows<const typename F::Edge>(
        context.call.x, context.slots.time(chunk.end_step), 0);
    for (int64_t row = rows.begin; row < rows.end; ++row, ++chunk.rows) {
      if constexpr (F::kStage) {
        stage_input(context, chunk.rows, x.at(row, 0));
      } else {
        context.inputs[chunk.rows] = x.at(row, 0);
      }
    }
  }
  return chunk;
}

// The tiles of the projection; rows are those of a chunk.
template <class F>
struct Projection {
  const ForwardContext<F>& context;
  Panels<F> weights;

  void run(const Tile& tile) const {
    project(tile, context.projection_at(tile.panel, tile.first_row(), numbers()), nullptr);
  }
  FUSEDRNN_MEMBER int64_t numbers() const { return context.projection_vectors() * F::V::width; }

  FUSEDRNN_MEMBER void project(const Tile& tile, typename F::Real* out,
                               const Meanwhile* meanwhile) const {
    const PackedProduct& packed = context.job.packed.input;
    const int64_t I = context.p.I;
    const int vectors = context.projection_vectors();
    Product<F> product;
    product.depth = F::padded(I);
    product.set_weights(weights.data, weights.first, panel_size<F>(I, vectors), tile);
    product.set_columns(packed, tile.panel, numbers());
    product.out_row = numbers();
    product.out_panel = context.projection_rows * numbers();
    product.out = out;
    product.meanwhile = meanwhile;
    if constexpr (F::kQuantised) product.row_scale = context.staged_scales + tile.first_row();
    set_rows(tile, product);
    run_product_of_units(product, context.shape.gates, vectors, context.p.H, tile);
  }

  FUSEDRNN_MEMBER void set_rows(const Tile& tile, Product<F>& product) const {
    if constexpr (F::kStage) {
      const int64_t stride = context.job.ld_staged;
      product.set_rows(context.staged + tile.first_row() * stride, stride);
    } else {
      for (int64_t m = 0; m < tile.rows; ++m) product.rows[m] = context.inputs[tile.row + m];
    }
  }
};

template <class F>
FUSEDRNN_ONCE void project_panels(const ForwardContext<F>& context,
                                  typename F::MatrixUnit::Registers& registers, int64_t rows,
                                  Range panels, Panels<F> weights) {
  for_products<F>(registers, context.projection_vectors(), Projection<F>{context, weights}, panels,
                  {0, rows});
}

// The chunk that begins with `step`.
template <class F>
FUSEDRNN_ONCE InputChunk project_chunk(const ForwardContext<F>& context,
                                       typename F::MatrixUnit::Registers& registers, int64_t step) {
  const InputChunk chunk = find_inputs(context, step, context.p.T);
  if constexpr (kUnpacked<F>) {
    if (context.job.single_row) {
      const Range panels = context.panels('H');
      const int64_t numbers = context.projection_vectors() * F::V::width;
      for (int64_t panel = panels.begin; panel < panels.end && chunk.rows > 0; ++panel) {
        multiply_unpacked(context, context.shape.input, context.job.packed.input, panel,
                          context.inputs[0], context.projection_at(panel, 0, numbers));
      }
      return chunk;
    }
  }
  for_packed(
      context, context.shape.input, context.projection_vectors(), context.job.packed.input.weights,
      [&](Range panels, Panels<F> weights)
          FUSEDRNN_LAMBDA { project_panels(context, registers, chunk.rows, panels, weights); });
  return chunk;
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
