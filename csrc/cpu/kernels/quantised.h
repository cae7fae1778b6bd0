// Quantisation to 8 bits: weights once, with a scale for every row of w (a gate of a unit);
// activations at each product, with a scale for every row of x or h. A row's largest magnitude is
// 127 of its scale, zero stays zero, everything is rounded to nearest. Rows whose scale would be a
// denormal, which is zero in here, count as zeros.
#pragma once

#include "cpu/kernels/pack.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

constexpr float kLargest8 = 127;
// 1.5 * 2^23: a small number added to it is rounded to a whole one, which its low bits hold.
constexpr float kShifter = 0x1.8p+23f;
// The least magnitude whose scale is a normal number; 127 over it is a number, too.
constexpr float kLeastTop = kLargest8 * 0x1p-126f;

// A row whose largest magnitude is `top`: its scale, and what makes whole numbers of its own.
struct RowScale {
  float scale, inverse;
};

FUSEDRNN_INLINE RowScale scale_of(float top) {
  if (!(top >= kLeastTop)) return {0, 0};
  return {top / kLargest8, kLargest8 / top};
}

// The row's scale; NaN where the row has one, or an infinity, so that results do.
template <class F>
FUSEDRNN_INLINE float quantise_row(const float* src, int64_t n, typename F::Row* dst) {
  using V = typename F::V;
  V largest = V::zero(), poison = V::zero();
  for (int64_t i = 0; i < n; i += V::width) {
    const V x = load_columns<V>(src, i, n);
    largest = max(largest, abs(x));
    poison = fma(x, V::zero(), poison);
  }
  float magnitudes[V::width], poisons[V::width];
  largest.store(magnitudes);
  poison.store(poisons);
  float top = 0, bad = 0;
  for (int i = 0; i < V::width; ++i) {
    top = magnitudes[i] > top ? magnitudes[i] : top;
    bad += poisons[i];
  }
  const RowScale row = scale_of(top);
  const V inverse = V::set(row.inverse);
  const V shifter = V::set(kShifter + static_cast<float>(F::Dot::kOffset));
  for (int64_t i = 0; i < F::padded(n); i += V::width) {
    F::Dot::store_operands(fma(load_columns<V>(src, i, n), inverse, shifter), shifter, dst + i);
  }
  return row.scale + bad;
}

// A product's weights into panels, as pack_weights() does, their scales, and what their sums start
// with.
template <class F>
FUSEDRNN_ONCE void quantise_weights(const Problem& p, const ProductShape& product, int unit_vectors,
                                    const Matrix& w, Range panels, const PackedProduct& packed) {
  constexpr int64_t D = F::Dot::kDepth;
  const int64_t units = extent(p, product.units), depth = depth_of(p, product);
  const int64_t U = int64_t{unit_vectors} * F::V::width, gates = product.gates;
  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    Int8* block =
        static_cast<Int8*>(packed.weights) + panel * panel_size<F>(depth, gates * unit_vectors);
    for (int64_t g = 0; g < gates; ++g) {
      for (int64_t lane = 0; lane < U; ++lane) {
        const int64_t unit = panel * U + lane;
        const int64_t at = (product.first + g) * units + unit;
        const float* row =
            unit < units ? static_cast<const float*>(w.data) + at * w.stride : nullptr;
        float top = 0;
        bool finite = true;
        for (int64_t k = 0; row != nullptr && k < depth; ++k) {
          const float magnitude = row[k] < 0 ? -row[k] : row[k];
          top = magnitude > top ? magnitude : top;
          finite &= magnitude <= 0x1.fffffep+127f;
        }
        const RowScale scaling = finite ? scale_of(top) : RowScale{0, 0};
        int32_t sum = 0;
        for (int64_t k = 0; k < F::padded(depth); ++k) {
          float scaled = row != nullptr && k < depth && finite ? row[k] * scaling.inverse : 0;
          scaled = (scaled + kShifter) - kShifter;
          const auto value = static_cast<int8_t>(scaled);
          sum += value;
          block[(k / D * gates * U + g * U + lane) * D + k % D].value = value;
        }
        const int64_t column = (panel * gates + g) * U + lane;
        packed.scale[column] = finite ? scaling.scale : float_of(0x7fc00000u);  // a NaN in w
        packed.start[column] = -F::Dot::kOffset * sum;
      }
    }
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
