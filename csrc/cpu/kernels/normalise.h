// Norms over rows (cells::Norm): their statistics before a stage's map, and after its backward what
// the gradients of normalised numbers become on the way through them. A thread has all units of its
// sequences, and sums over them in one order.
#pragma once

#include "cpu/kernels/backward_context.h"
#include "cpu/kernels/forward_context.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// The first `lanes` of a vector, and zeros.
template <class V>
FUSEDRNN_INLINE V only(int lanes, V v) {
  if (lanes == V::width) return v;
  typename V::real numbers[V::width];
  v.store(numbers);
  return V::load(numbers, lanes);
}

// The sum of the lanes, in their order, in each.
template <class V>
FUSEDRNN_INLINE V sum_of_lanes(V v) {
  typename V::real numbers[V::width];
  v.store(numbers);
  V sum = V::set(numbers[0]);
  for (int i = 1; i < V::width; ++i) sum = sum + V::set(numbers[i]);
  return sum;
}

FUSEDRNN_INLINE float inverse_sqrt(float x) { return 1.0f / __builtin_sqrtf(x); }
FUSEDRNN_INLINE double inverse_sqrt(double x) { return 1.0 / __builtin_sqrt(x); }
template <class R>
FUSEDRNN_INLINE Dual<R> inverse_sqrt(Dual<R> x) {
  Dual<R> y(inverse_sqrt(x.value));
  y.tangent = R(-0.5) * y.value / x.value * x.tangent;
  return y;
}

// Calls visit(gate, unit, lanes) for each vector of a norm's numbers, and adds up what it returns.
template <class V, class Visit>
FUSEDRNN_INLINE V sum_over(const NormShape& norm, int64_t units, const Visit& visit) {
  V sum = V::zero();
  for (int g = 0; g < norm.gates; ++g) {
    for (int64_t unit = 0; unit < units; unit += V::width) {
      sum = sum + visit(g, unit, lanes_at<V>(unit, units));
    }
  }
  return sum_of_lanes(sum);
}

template <class V>
FUSEDRNN_INLINE V mean_over(const NormShape& norm, int64_t units, V sum) {
  using Number = typename PlainOf<typename V::real>::type;
  return sum * V::set(Number(1) / static_cast<Number>(norm.gates * units));
}

// `at(gate, unit)`: where a vector of the numbers lies, of which those beyond `units` are anything.
template <class V, class At>
FUSEDRNN_INLINE RowNorm<typename V::real> norm_of_row(const NormShape& norm, int64_t units,
                                                      const At& at) {
  using Number = typename PlainOf<typename V::real>::type;
  const V mean =
      mean_over(norm, units, sum_over<V>(norm, units, [&](int g, int64_t unit, int lanes) {
                  return only(lanes, at(g, unit));
                }));
  const V variance =
      mean_over(norm, units, sum_over<V>(norm, units, [&](int g, int64_t unit, int lanes) {
                  const V centred = at(g, unit) - mean;
                  return only(lanes, centred * centred);
                }));
  typename V::real numbers[V::width];
  (variance + V::set(static_cast<Number>(norm.epsilon))).store(numbers);
  RowNorm<typename V::real> found;
  found.scale = inverse_sqrt(numbers[0]);
  mean.store(numbers);
  found.mean = numbers[0];
  return found;
}

// The norms of a stage, of the thread's sequences. `sums`: those of its product, or the row that it
// was passed.
template <class F>
FUSEDRNN_ONCE void find_norms(const ForwardContext<F>& context, int index, int vectors,
                              const typename F::Real* sums,
                              const ForwardArrays<typename F::Real>& arrays,
                              RowNorm<typename F::Real>* norms) {
  using V = typename F::V;
  const KernelShape& shape = context.shape;
  const Range rows = context.share.rows;
  const int64_t U = context.panel_units, numbers = vectors * V::width;
  for (int n = 0; n < shape.norm_count; ++n) {
    const NormShape& norm = shape.norms[n];
    if (norm.stage != index) continue;
    const int first_of_sums = shape.stages[index].reads_row ? 0 : shape.stages[index].product.first;
    for (int64_t b = rows.begin; b < rows.end; ++b) {
      if (!is_valid(arrays.flags, b - rows.begin)) continue;
      const int64_t row = b - rows.begin;
      const auto at = [&](int g, int64_t unit) FUSEDRNN_LAMBDA {
        const int64_t panel = unit / U, lane = unit % U;
        const auto of_a = [&] {
          return V::load(arrays.projection + panel * arrays.projection_panel +
                         row * arrays.projection_row + (norm.first + g) * U + lane);
        };
        const auto of_u = [&] {
          return V::load(sums + (panel * rows.size() + row) * numbers +
                         (norm.first - first_of_sums + g) * U + lane);
        };
        if (norm.of == cells::Normed::input) return of_a();
        if (norm.of == cells::Normed::sum) return of_a() + of_u();
        return of_u();
      };
      norms[row * shape.norm_count + n] = norm_of_row<V>(norm, context.p.H, at);
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
  const int64_t H = context.p.H, B = context.p.B, U = context.saved_panel(), ld = job.ld_state;
  const int64_t gate_row = context.gate_step(step.time) * B;
  for (int n = 0; n < shape.norm_count; ++n) {
    const NormShape& norm = shape.norms[n];
    if (norm.stage != index) continue;
    for (int64_t b = context.share.rows.begin; b < context.share.rows.end; ++b) {
      const Real* const dnormed =
          static_cast<const Real*>(job.dnormed) + (b * shape.normed_blocks + norm.block) * ld;
      const Real* const saved =
          static_cast<const Real*>(job.kept.saved) + (gate_row + b) * context.saved_numbers();
      const bool valid = is_valid(step.flags, b);
      const auto d = [&](int g, int64_t unit)
                         FUSEDRNN_LAMBDA { return V::load(dnormed + g * ld + unit); };
      const auto x = [&](int g, int64_t unit) FUSEDRNN_LAMBDA {
        return V::load(saved + (unit / U * shape.saved + norm.saved + g) * U + unit % U);
      };
      V mean = V::zero(), along = V::zero(), scale = V::zero();
      if (valid) {
        mean = mean_over(norm, H, sum_over<V>(norm, H, [&](int g, int64_t unit, int lanes) {
                           return only(lanes, d(g, unit));
                         }));
        along = mean_over(norm, H, sum_over<V>(norm, H, [&](int g, int64_t unit, int lanes) {
                            return only(lanes, d(g, unit) * x(g, unit));
                          }));
        const auto* const norms = static_cast<const RowNorm<Real>*>(job.kept.norms);
        scale = V::set(norms[(gate_row + b) * shape.norm_count + n].scale);
      }
      for (int g = 0; g < norm.gates; ++g) {
        for (int64_t unit = 0; unit < H; unit += V::width) {
          const V dx = valid ? scale * (d(g, unit) - mean - x(g, unit) * along) : V::zero();
          if (norm.delta < 0) {
            const V beside = valid ? d(norm.gates, unit) : V::zero();
            (dx + beside).store(static_cast<Real*>(job.dpassed) + b * ld + unit);
          } else {
            auto* const dst =
                context.delta_row(step.time, b) + (norm.delta + g) * job.delta_block + unit;
            context.store_delta(dst, F::round_gradient(dx), unit, H);
          }
        }
      }
    }
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
