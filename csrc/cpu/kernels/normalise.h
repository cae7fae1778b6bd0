// Norms over rows (cells::Norm): their statistics before a stage's map, and after its backward what
// the gradients of normalised numbers become on the way through them. A thread has all units of its
// sequences, and sums over them in one order.
#pragma once

#include "cpu/kernels/backward_context.h"
#include "cpu/kernels/dual.h"
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

// Each lane and that kApart beside it.
template <int kApart, class V, int... I>
FUSEDRNN_INLINE V add_lanes(V v, LaneNumbers<I...>) {
  return v + V{__builtin_shufflevector(v.v, v.v, (I ^ kApart)...)};
}
template <int kApart, class V>
FUSEDRNN_INLINE V add_halves(V v) {
  if constexpr (kApart == 0) {
    return v;
  } else {
    return add_halves<kApart / 2>(add_lanes<kApart>(v, typename FirstLanes<V::width>::type{}));
  }
}

// The sum of the lanes, in each.
template <class V>
FUSEDRNN_INLINE V sum_of_lanes(V v) {
  return add_halves<V::width / 2>(v);
}
template <class R>
FUSEDRNN_INLINE Vec<Dual<R>> sum_of_lanes(Vec<Dual<R>> v) {
  return {sum_of_lanes(v.value), sum_of_lanes(v.tangent)};
}
template <class V>
FUSEDRNN_INLINE Twin<V> sum_of_lanes(Twin<V> x) {
  return {sum_of_lanes(x.first), sum_of_lanes(x.second)};
}

template <class V>
FUSEDRNN_INLINE typename V::real first_lane(V v) {
  return v.v[0];
}
template <class R>
FUSEDRNN_INLINE Dual<R> first_lane(Vec<Dual<R>> v) {
  Dual<R> x(first_lane(v.value));
  x.tangent = first_lane(v.tangent);
  return x;
}

FUSEDRNN_INLINE float inverse_sqrt(float x) { return 1.0f / __builtin_sqrtf(x); }
FUSEDRNN_INLINE double inverse_sqrt(double x) { return 1.0 / __builtin_sqrt(x); }
template <class R>
FUSEDRNN_INLINE Dual<R> inverse_sqrt(Dual<R> x) {
  Dual<R> y(inverse_sqrt(x.value));
  y.tangent = R(-0.5) * y.value / x.value * x.tangent;
  return y;
}

// Calls run(Gates<norm.gates>{}), so that loops over the gates of a norm are of known length.
template <int N>
struct Gates {};
template <class Run>
FUSEDRNN_INLINE void with_gates(const NormShape& norm, const Run& run) {
  static_assert(kMaxNormGates == 4);
  switch (norm.gates) {
    case 1:
      return run(Gates<1>{});
    case 2:
      return run(Gates<2>{});
    case 3:
      return run(Gates<3>{});
    default:
      return run(Gates<4>{});
  }
}

// The mean of of(panel, gate), a vector or two each, over N gates and the units of a row, in each
// lane. Four sums side by side, so that additions need not wait for each other.
template <class V, class X, int N, class Of>
FUSEDRNN_INLINE X mean_over(Gates<N>, int64_t units, const Of& of) {
  constexpr int W = V::width;
  X sums[4] = {X::zero(), X::zero(), X::zero(), X::zero()};
  int64_t panel = 0;
  for (; (panel + 2) * W <= units; panel += 2) {
    FUSEDRNN_UNROLL
    for (int g = 0; g < N; ++g) {
      sums[g % 2] = sums[g % 2] + of(panel, g);
      sums[2 + g % 2] = sums[2 + g % 2] + of(panel + 1, g);
    }
  }
  for (; panel * W < units; ++panel) {
    const int lanes = lanes_at<V>(panel * W, units);
    FUSEDRNN_UNROLL
    for (int g = 0; g < N; ++g) sums[0] = sums[0] + only(lanes, of(panel, g));
  }
  using Number = typename PlainOf<typename V::real>::type;
  const X share = X::set(Number(1) / static_cast<Number>(N * units));
  return sum_of_lanes((sums[0] + sums[1]) + (sums[2] + sums[3])) * share;
}

// `at(panel, gate)`: a vector of the numbers, of which those beyond `units` are anything.
template <class V, int N, class At>
FUSEDRNN_INLINE RowNorm<typename V::real> norm_of_row(Gates<N> gates, int64_t units, double epsilon,
                                                      const At& at) {
  using Number = typename PlainOf<typename V::real>::type;
  const V mean = mean_over<V, V>(gates, units, at);
  const V variance = mean_over<V, V>(gates, units, [&](int64_t panel, int g) FUSEDRNN_LAMBDA {
    const V centred = at(panel, g) - mean;
    return centred * centred;
  });
  const V spread = variance + V::set(static_cast<Number>(epsilon));
  return {first_lane(mean), inverse_sqrt(first_lane(spread))};
}

// The norms of the input projection, of some steps of a chunk, whose rows begin with `chunk_row`.
// No step waits for the one before. Normalised numbers go where they are saved, if they are, else
// take the place of the others. Panels are of one vector.
template <class F>
FUSEDRNN_ONCE void normalise_inputs(const ForwardContext<F>& context, Range steps,
                                    int64_t chunk_row) {
  using V = typename F::V;
  using Real = typename F::Real;
  constexpr int W = V::width;
  const KernelShape& shape = context.shape;
  const int64_t numbers = context.projection_vectors() * W, H = context.p.H;
  const int64_t panel_numbers = context.projection_rows * numbers;
  auto* const saved = static_cast<Real*>(context.job.kept.saved);
  if (shape.normed_inputs < 0) return;
  for (int64_t number = steps.begin; number < steps.end; ++number) {
    const ForwardStep step(context, number, chunk_row);
    chunk_row += step.rows.size();
    const Rows<RowNorm<Real>> norms = context.norms_at(step.of_step);
    for (int n = 0; n < shape.norm_count; ++n) {
      const NormShape& norm = shape.norms[n];
      if (norm.of != cells::Normed::input) continue;
      with_gates(norm, [&]<int N>(Gates<N> gates) FUSEDRNN_LAMBDA {
        for (int64_t row = step.rows.begin; row < step.rows.end; ++row) {
          if (!is_valid(step.flags, row)) continue;
          Real* const a =
              context.projection_at(0, step.chunk_row + row, numbers) + int64_t{norm.first} * W;
          const auto load = [&](int64_t panel, int g) FUSEDRNN_LAMBDA {
            return V::load(a + panel * panel_numbers + g * W);
          };
          const RowNorm<Real> found = norm_of_row<V>(gates, H, norm.epsilon, load);
          const cells::NormOf<V> normed{V::set(found.mean), V::set(found.scale)};
          Real* to = a;
          int64_t to_panel = panel_numbers;
          if (saved != nullptr) {
            to = saved + context.saved_offset(step.of_step, row) + int64_t{norm.saved} * W;
            to_panel = int64_t{shape.saved} * W;
          }
          for (int64_t panel = 0; panel * W < H; ++panel, to += to_panel) {
            FUSEDRNN_UNROLL
            for (int g = 0; g < N; ++g) normed.of(load(panel, g)).store(to + g * W);
          }
          *norms.at(row, n) = found;
        }
      });
    }
  }
}

// The other norms of a stage, of the thread's rows that live. `sums`: those of its product.
template <class F>
FUSEDRNN_ONCE void find_norms(const ForwardContext<F>& context, int index,
                              const typename F::Real* sums, Range step_rows,
                              const ForwardArrays<typename F::Real>& arrays,
                              const Rows<RowNorm<typename F::Real>>& norms) {
  using V = typename F::V;
  using Real = typename F::Real;
  constexpr int W = V::width;
  const KernelShape& shape = context.shape;
  const StageShape& stage = shape.stages[index];
  const int64_t rows = step_rows.size(), H = context.p.H;
  const int vectors = stage_vectors(shape, stage);
  const int64_t sums_panel = rows * vectors * W, a_panel = arrays.projection_panel;
  for (int n = 0; n < shape.norm_count; ++n) {
    const NormShape& norm = shape.norms[n];
    if (norm.stage != index || norm.of == cells::Normed::input) continue;
    with_gates(norm, [&]<int N>(Gates<N> gates) FUSEDRNN_LAMBDA {
      for (int64_t row = 0; row < rows; ++row) {
        if (!is_valid(arrays.flags, row)) continue;
        RowNorm<Real>& found = *norms.at(row, n);
        const auto find = [&](const auto& at) FUSEDRNN_LAMBDA {
          found = norm_of_row<V>(gates, H, norm.epsilon, at);
        };
        if (norm.of == cells::Normed::passed) {
          const Real* const passed = arrays.passed.at(row, 0);
          find([&](int64_t panel, int) FUSEDRNN_LAMBDA { return V::load(passed + panel * W); });
          continue;
        }
        const Real* const u =
            sums + row * vectors * W + int64_t{norm.first - stage.product.first} * W;
        const auto of_u = [&](int64_t panel, int g)
                              FUSEDRNN_LAMBDA { return V::load(u + panel * sums_panel + g * W); };
        if (norm.of == cells::Normed::recurrent) {
          find(of_u);
          continue;
        }
        const Real* const a =
            arrays.projection + row * arrays.projection_row + int64_t{norm.first} * W;
        find([&](int64_t panel, int g)
                 FUSEDRNN_LAMBDA { return V::load(a + panel * a_panel + g * W) + of_u(panel, g); });
      }
    });
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
  const int64_t padded = F::padded(H), panels = blocks_of(padded, W);
  const int64_t saved_panel = int64_t{shape.saved} * W;
  const int64_t slot = context.kept_slot(step.time);
  for (int n = 0; n < shape.norm_count; ++n) {
    const NormShape& norm = shape.norms[n];
    if (norm.stage != index) continue;
    with_gates(norm, [&]<int N>(Gates<N> gates) FUSEDRNN_LAMBDA {
      for (int64_t row = step.rows.begin; row < step.rows.end; ++row) {
        const int64_t place = context.sequences.place(row);
        const bool valid = is_valid(step.flags, row);
        auto* const deltas = context.delta_row(step.time, row) + norm.delta * job.delta_block;
        // Products read zeros behind the last unit, and of a row that does not exist.
        const auto fill = [&](int64_t panel) FUSEDRNN_LAMBDA {
          for (int g = 0; g < N && norm.delta >= 0; ++g) {
            auto* const dst = deltas + g * job.delta_block + panel * W;
            context.store_delta(dst, V::zero(), panel * W, H);
          }
        };
        if (!valid) {
          for (int64_t panel = 0; panel < panels; ++panel) fill(panel);
          continue;
        }
        const Real* const dnormed =
            static_cast<const Real*>(job.dnormed) + (place * shape.normed_blocks + norm.block) * ld;
        const Real* const saved = static_cast<const Real*>(job.kept.saved) +
                                  context.saved_offset(slot, row) + norm.saved * W;
        const auto d = [&](int64_t panel, int g)
                           FUSEDRNN_LAMBDA { return V::load(dnormed + g * ld + panel * W); };
        const auto x = [&](int64_t panel, int g)
                           FUSEDRNN_LAMBDA { return V::load(saved + panel * saved_panel + g * W); };
        // Of dx^, and of dx^ * x^.
        const Twin<V> means =
            mean_over<V, Twin<V>>(gates, H, [&](int64_t panel, int g) FUSEDRNN_LAMBDA {
              const V dx = d(panel, g);
              return Twin<V>{dx, dx * x(panel, g)};
            });
        const auto* const norms = static_cast<const RowNorm<Real>*>(job.kept.norms);
        const V scale = V::set(norms[(slot * B + place) * shape.norm_count + n].scale);
        const auto dx = [&](int64_t panel, int g) FUSEDRNN_LAMBDA {
          return scale * (d(panel, g) - means.first - x(panel, g) * means.second);
        };
        if (norm.delta < 0) {
          Real* const dpassed = static_cast<Real*>(job.dpassed) + place * ld;
          for (int64_t panel = 0; panel * W < H; ++panel) {
            // And what reaches the row beside its norm.
            (dx(panel, 0) + d(panel, N)).store(dpassed + panel * W);
          }
          continue;
        }
        int64_t panel = 0;
        for (; (panel + 1) * W <= H; ++panel) {
          FUSEDRNN_UNROLL
          for (int g = 0; g < N; ++g) {
            F::round_gradient(dx(panel, g)).store(deltas + g * job.delta_block + panel * W);
          }
        }
        if (panel * W < H) {
          for (int g = 0; g < N; ++g) {
            auto* const dst = deltas + g * job.delta_block + panel * W;
            context.store_delta(dst, F::round_gradient(dx(panel, g)), panel * W, H);
          }
          ++panel;
        }
        for (; panel < panels; ++panel) fill(panel);
      }
    });
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
