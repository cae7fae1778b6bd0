// Norms over rows (cells::Norm): their statistics before a stage's map, and after its backward what
// the gradients of normalised numbers become on the way through them. A thread has all units of its
// sequences, and sums over them in one order.
#pragma once

#include "cpu/kernels/backward_context.h"
#include "cpu/kernels/forward_context.h"
#include "cpu/kernels/twin.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// The first `lanes` of a vector, and zeros.
template <class V>
FUSEDRNN_INLINE V only(int lanes, V v) {
  if (lanes == V::width) return v;
  typename V::real numbers[V::width];
  v.store(numbers);
  return V::load(numbers, lanes);
}

template <class V>
FUSEDRNN_INLINE Twin<V> only(int lanes, Twin<V> x) {
  return {only(lanes, x.first), only(lanes, x.second)};
}

FUSEDRNN_INLINE float sum_of(float a, float b) { return a + b; }
FUSEDRNN_INLINE double sum_of(double a, double b) { return a + b; }
template <class R>
FUSEDRNN_INLINE Dual<R> sum_of(Dual<R> a, Dual<R> b) {
  Dual<R> sum(a.value + b.value);
  sum.tangent = a.tangent + b.tangent;
  return sum;
}

// Of N numbers, by halves, each of known length: sums stay in registers.
template <int N, class Real>
FUSEDRNN_INLINE Real sum_by_halves(const Real* numbers) {
  if constexpr (N == 1) {
    return numbers[0];
  } else {
    Real halves[N / 2];
    FUSEDRNN_UNROLL
    for (int i = 0; i < N / 2; ++i) halves[i] = sum_of(numbers[i], numbers[i + N / 2]);
    return sum_by_halves<N / 2>(halves);
  }
}

// The sum of the lanes, in each.
template <class V>
FUSEDRNN_INLINE V sum_of_lanes(V v) {
  typename V::real numbers[V::width];
  v.store(numbers);
  return V::set(sum_by_halves<V::width>(numbers));
}
template <class V>
FUSEDRNN_INLINE Twin<V> sum_of_lanes(Twin<V> x) {
  return {sum_of_lanes(x.first), sum_of_lanes(x.second)};
}

FUSEDRNN_INLINE float inverse_sqrt(float x) { return 1.0f / __builtin_sqrtf(x); }
FUSEDRNN_INLINE double inverse_sqrt(double x) { return 1.0 / __builtin_sqrt(x); }
template <class R>
FUSEDRNN_INLINE Dual<R> inverse_sqrt(Dual<R> x) {
  Dual<R> y(inverse_sqrt(x.value));
  y.tangent = R(-0.5) * y.value / x.value * x.tangent;
  return y;
}

// The mean of of(panel, gate), a vector or two each, over the gates and units of a norm's row, in
// each lane. Four sums side by side, so that additions need not wait for each other.
template <class V, class X, class Of>
FUSEDRNN_INLINE X mean_over(const NormShape& norm, int64_t units, const Of& of) {
  constexpr int W = V::width;
  X sums[4] = {X::zero(), X::zero(), X::zero(), X::zero()};
  int64_t panel = 0;
  for (; (panel + 2) * W <= units; panel += 2) {
    int g = 0;
    for (; g + 2 <= norm.gates; g += 2) {
      sums[0] = sums[0] + of(panel, g);
      sums[1] = sums[1] + of(panel, g + 1);
      sums[2] = sums[2] + of(panel + 1, g);
      sums[3] = sums[3] + of(panel + 1, g + 1);
    }
    if (g == norm.gates) continue;
    sums[0] = sums[0] + of(panel, g);
    sums[2] = sums[2] + of(panel + 1, g);
  }
  for (; panel * W < units; ++panel) {
    const int lanes = lanes_at<V>(panel * W, units);
    for (int g = 0; g < norm.gates; ++g) sums[0] = sums[0] + only(lanes, of(panel, g));
  }
  using Number = typename PlainOf<typename V::real>::type;
  const X share = X::set(Number(1) / static_cast<Number>(norm.gates * units));
  return sum_of_lanes((sums[0] + sums[1]) + (sums[2] + sums[3])) * share;
}

// `at(panel, gate)`: a vector of the numbers, of which those beyond `units` are anything.
template <class V, class At>
FUSEDRNN_INLINE RowNorm<typename V::real> norm_of_row(const NormShape& norm, int64_t units,
                                                      const At& at) {
  using Number = typename PlainOf<typename V::real>::type;
  const V mean = mean_over<V, V>(norm, units, at);
  const V variance = mean_over<V, V>(norm, units, [&](int64_t panel, int g) FUSEDRNN_LAMBDA {
    const V centred = at(panel, g) - mean;
    return centred * centred;
  });
  typename V::real numbers[V::width];
  (variance + V::set(static_cast<Number>(norm.epsilon))).store(numbers);
  RowNorm<typename V::real> found;
  found.scale = inverse_sqrt(numbers[0]);
  mean.store(numbers);
  found.mean = numbers[0];
  return found;
}

// The norms of a stage, of the thread's rows that live. `sums`: those of its product, or the row
// that it was passed. Panels are of one vector.
template <class F>
FUSEDRNN_ONCE void find_norms(const ForwardContext<F>& context, int index, int vectors,
                              const typename F::Real* sums, Range step_rows,
                              const ForwardArrays<typename F::Real>& arrays,
                              const Rows<RowNorm<typename F::Real>>& norms) {
  using V = typename F::V;
  using Real = typename F::Real;
  constexpr int W = V::width;
  const KernelShape& shape = context.shape;
  const int64_t rows = step_rows.size(), H = context.p.H;
  const int64_t sums_panel = rows * vectors * W, a_panel = arrays.projection_panel;
  for (int n = 0; n < shape.norm_count; ++n) {
    const NormShape& norm = shape.norms[n];
    if (norm.stage != index) continue;
    const int first_of_sums = shape.stages[index].reads_row ? 0 : shape.stages[index].product.first;
    for (int64_t row = 0; row < rows; ++row) {
      if (!is_valid(arrays.flags, row)) continue;
      const Real* const a =
          arrays.projection + row * arrays.projection_row + int64_t{norm.first} * W;
      const Real* const u = sums + row * vectors * W + int64_t{norm.first - first_of_sums} * W;
      const auto of_a = [&](int64_t panel, int g)
                            FUSEDRNN_LAMBDA { return V::load(a + panel * a_panel + g * W); };
      const auto of_u = [&](int64_t panel, int g)
                            FUSEDRNN_LAMBDA { return V::load(u + panel * sums_panel + g * W); };
      RowNorm<Real>& found = *norms.at(row, n);
      if (norm.of == cells::Normed::input) {
        found = norm_of_row<V>(norm, H, of_a);
      } else if (norm.of == cells::Normed::sum) {
        found = norm_of_row<V>(norm, H, [&](int64_t panel, int g) FUSEDRNN_LAMBDA {
          return of_a(panel, g) + of_u(panel, g);
        });
      } else {
        found = norm_of_row<V>(norm, H, of_u);
      }
    }
  }
}

// From the gradients of a stage's normalised numbers, as its map left them, to those of the
// numbers:
//   dx = scale * (dx^ - mean(dx^) - x^ * mean(dx^ * x^)).
template <class F>
FUSEDRNN_ONCE void through_norms(const BackwardContext<F>& context, const BackwardStep& step,
                                 int index) {
  using V = typename F::V;
  using Real = typename F::Real;
  const KernelShape& shape = context.shape;
  const BackwardJob& job = context.job;
  constexpr int W = V::width;
  const int64_t H = context.p.H, B = context.p.B, ld = job.ld_state;
  const int64_t slot = context.kept_slot(step.time);
  for (int n = 0; n < shape.norm_count; ++n) {
    const NormShape& norm = shape.norms[n];
    if (norm.stage != index) continue;
    for (int64_t row = step.rows.begin; row < step.rows.end; ++row) {
      const int64_t place = context.sequences.place(row);
      const Real* const dnormed =
          static_cast<const Real*>(job.dnormed) + (place * shape.normed_blocks + norm.block) * ld;
      const Real* const saved = static_cast<const Real*>(job.kept.saved) +
                                context.saved_offset(slot, row) + norm.saved * W;
      const bool valid = is_valid(step.flags, row);
      const auto d = [&](int64_t panel, int g)
                         FUSEDRNN_LAMBDA { return V::load(dnormed + g * ld + panel * W); };
      const auto x = [&](int64_t panel, int g)
                         FUSEDRNN_LAMBDA { return V::load(saved + (panel * shape.saved + g) * W); };
      Twin<V> means = Twin<V>::zero();  // of dx^, and of dx^ * x^
      V scale = V::zero();
      if (valid) {
        means = mean_over<V, Twin<V>>(norm, H, [&](int64_t panel, int g) FUSEDRNN_LAMBDA {
          const V dx = d(panel, g);
          return Twin<V>{dx, dx * x(panel, g)};
        });
        const auto* const norms = static_cast<const RowNorm<Real>*>(job.kept.norms);
        scale = V::set(norms[(slot * B + place) * shape.norm_count + n].scale);
      }
      auto* const deltas = context.delta_row(step.time, row);
      for (int g = 0; g < norm.gates; ++g) {
        // Products read zeros behind the last unit.
        for (int64_t panel = 0; panel * W < F::padded(H); ++panel) {
          const int64_t unit = panel * W;
          const bool computed = valid && unit < H;
          V dx = V::zero();
          if (computed) dx = scale * (d(panel, g) - means.first - x(panel, g) * means.second);
          if (norm.delta < 0) {
            if (unit >= H) continue;
            if (valid) dx = dx + d(panel, norm.gates);  // what reaches the row beside its norm
            dx.store(static_cast<Real*>(job.dpassed) + place * ld + unit);
          } else {
            auto* const dst = deltas + (norm.delta + g) * job.delta_block + unit;
            context.store_delta(dst, F::round_gradient(dx), unit, H);
          }
        }
      }
    }
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
