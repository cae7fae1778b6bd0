// Packing of all that a cell's table names, driven by it.
#pragma once

#include "cpu/kernels/quantised.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// A thread's share of a product: weights, biases and what else belongs to them.
template <class F>
FUSEDRNN_ONCE void pack_product(const ForwardJob& job, const ProductShape& product,
                                const Share& share, const PackedProduct& packed) {
  if (product.weights < 0) return;
  const Problem& p = job.call->problem;
  const Matrix* parameters = job.call->parameters;
  const int64_t units = extent(p, product.units);
  const int unit_vectors = job.shape->unit_vectors;
  const Range panels = share.of_all(blocks_of(units, unit_vectors * F::V::width));
  for (int g = 0; g < product.gates; ++g) {
    pack_vector<F>(vector_block<F>(parameters, product.bias, product.first + g, units), units,
                   unit_vectors, panels, g, product.gates,
                   static_cast<typename F::Real*>(packed.bias));
  }
  const Matrix& w = parameters[product.weights];
  if constexpr (F::kQuantised) {
    quantise_weights<F>(p, product, unit_vectors, w, panels, packed);
  } else if (job.stream.data == nullptr && !job.single_row) {
    const int64_t panel =
        panel_size<F>(depth_of(p, product), int64_t{product.gates} * unit_vectors);
    pack_weights<F>(p, product, unit_vectors, w, panels,
                    static_cast<typename F::Panel*>(packed.weights) + panels.begin * panel);
  }
}

// A thread's share of all parameters, for a call of its own or for later ones.
template <class F>
FUSEDRNN_ONCE void pack_cell(const ForwardJob& job, const Share& share) {
  const CellShape& shape = *job.shape;
  pack_product<F>(job, shape.input, share, job.packed.input);
  for (int i = 0; i < shape.stage_count; ++i) {
    pack_product<F>(job, shape.stages[i].product, share, job.packed.stages[i]);
  }
  pack_vectors<F>(job.call->problem, shape, job.call->parameters, share, job.packed.vectors);
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
