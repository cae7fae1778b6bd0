// Norms over rows (cells::Norm), and norms of rows of gradients.
#pragma once

#include "cpu/kernels/dual.h"
#include "cpu/kernels/map_support.h"
#include "cpu/kernels/row_kernels.h"
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

// Calls run(Gates<row.gates>{}), so that loops over the gates of a norm are of known length: small
// rows notice it.
template <int N>
struct Gates {};
template <class Run>
FUSEDRNN_INLINE void with_gates(const NormedRow& row, const Run& run) {
  static_assert(kMaxNormGates == 4);
  switch (row.gates) {
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

// The mean of of(panel, gate), a vector or two each, over gates and the units of a row, in each
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
    for (int g = 0; g < N; ++g) sums[0] = sums[0] + only(lanes, of(panel, g));
  }
  using Number = typename PlainOf<typename V::real>::type;
  const X share = X::set(Number(1) / static_cast<Number>(N * units));
  return sum_of_lanes((sums[0] + sums[1]) + (sums[2] + sums[3])) * share;
}

template <class Real>
FUSEDRNN_INLINE Vec<Real> vector_at(const GateVectors<const Real>& a, int64_t panel, int gate) {
  return Vec<Real>::load(a.data + panel * a.panel + gate * a.gate);
}

template <class V, int N, class At>
FUSEDRNN_INLINE RowNorm<typename V::real> norm_of_row(Gates<N> gates, const NormedRow& row,
                                                      const At& at) {
  using Number = typename PlainOf<typename V::real>::type;
  const V mean = mean_over<V, V>(gates, row.units, at);
  const V variance = mean_over<V, V>(gates, row.units, [&](int64_t panel, int g) FUSEDRNN_LAMBDA {
    const V centred = at(panel, g) - mean;
    return centred * centred;
  });
  const V spread = variance + V::set(static_cast<Number>(row.epsilon));
  return {first_lane(mean), inverse_sqrt(first_lane(spread))};
}

template <class Real, class At>
FUSEDRNN_INLINE RowNorm<Real> norm_of(const NormedRow& row, const At& at) {
  RowNorm<Real> found;
  with_gates(row, [&]<int N>(Gates<N> gates)
                      FUSEDRNN_LAMBDA { found = norm_of_row<Vec<Real>>(gates, row, at); });
  return found;
}

template <class Real>
FUSEDRNN_ONCE RowNorm<Real> find_norm(const NormedRow& row, const GateVectors<const Real>& a) {
  return norm_of<Real>(
      row, [&](int64_t panel, int g) FUSEDRNN_LAMBDA { return vector_at(a, panel, g); });
}

template <class Real>
FUSEDRNN_ONCE RowNorm<Real> find_norm_of_sum(const NormedRow& row, const GateVectors<const Real>& a,
                                             const GateVectors<const Real>& b) {
  return norm_of<Real>(row, [&](int64_t panel, int g) FUSEDRNN_LAMBDA {
    return vector_at(a, panel, g) + vector_at(b, panel, g);
  });
}

template <class Real>
FUSEDRNN_ONCE void normalise(const NormedRow& row, const GateVectors<const Real>& a,
                             const RowNorm<Real>& norm, const GateVectors<Real>& to) {
  using V = Vec<Real>;
  const cells::NormOf<V> normed{V::set(norm.mean), V::set(norm.scale)};
  for (int64_t panel = 0; panel * V::width < row.units; ++panel) {
    for (int g = 0; g < row.gates; ++g) {
      normed.of(vector_at(a, panel, g)).store(to.data + panel * to.panel + g * to.gate);
    }
  }
}

template <class Real>
FUSEDRNN_ONCE void through_norm(const NormedRow& row, const GateVectors<const Real>& dnormed,
                                const GateVectors<const Real>& normed, const Real& norm_scale,
                                const Real* beside, const GateVectors<Real>& to, bool whole) {
  using V = Vec<Real>;
  const V scale = V::set(norm_scale);
  with_gates(row, [&]<int N>(Gates<N> gates) FUSEDRNN_LAMBDA {
    // Of dx^, and of dx^ * x^.
    const Twin<V> means =
        mean_over<V, Twin<V>>(gates, row.units, [&](int64_t panel, int g) FUSEDRNN_LAMBDA {
          const V dx = vector_at(dnormed, panel, g);
          return Twin<V>{dx, dx * vector_at(normed, panel, g)};
        });
    for (int64_t panel = 0; panel * V::width < row.units; ++panel) {
      const int64_t unit = panel * V::width;
      const int lanes = lanes_at<V>(unit, row.units);
      FUSEDRNN_UNROLL
      for (int g = 0; g < N; ++g) {
        const V x = vector_at(normed, panel, g);
        V dx = scale * (vector_at(dnormed, panel, g) - means.first - x * means.second);
        if (beside != nullptr) dx = dx + V::load(beside + unit);
        Real* const dst = to.data + panel * to.panel + g * to.gate;
        if (whole || lanes == V::width) {
          dx.store(dst);
        } else {
          dx.store(dst, lanes);
        }
      }
    }
  });
}

// The sum of kSquareSums of them.
FUSEDRNN_INLINE double total_of(Vec<double>* sums) {
  FUSEDRNN_UNROLL
  for (int half = kSquareSums / Vec<double>::width / 2; half > 0; half /= 2) {
    FUSEDRNN_UNROLL
    for (int k = 0; k < half; ++k) sums[k] = sums[k] + sums[k + half];
  }
  return first_lane(sum_of_lanes(sums[0]));
}

// Times a power of two, in float64, and in one order whatever the threads.
template <class Real>
FUSEDRNN_ONCE double sum_of_squares(const Real* numbers, int64_t n, double scale) {
  using Wide = Vec<double>;
  constexpr int kParts = kSquareSums / Wide::width;
  Wide sums[kParts];
  FUSEDRNN_UNROLL
  for (Wide& sum : sums) sum = Wide::zero();
  int64_t i = 0;
  if constexpr (kSame<Real, typename PlainOf<Real>::type>) {
#pragma GCC unroll 4
    for (; i + kSquareSums <= n; i += kSquareSums) {
      FUSEDRNN_UNROLL
      for (int k = 0; k < kParts; ++k) {
        const Wide d = Wide::load(numbers + i + k * Wide::width) * Wide::set(scale);
        sums[k] = fma(d, d, sums[k]);
      }
    }
  }
  double total = total_of(sums);
  for (; i < n; ++i) {
    const double d = static_cast<double>(numbers[i]) * scale;
    total += d * d;
  }
  return total;
}

// Squares of float32 stay within the range of float64. Those of float64 that leave it are those of
// scaled numbers: gradients that explode or vanish are what norms are for.
template <class Real>
FUSEDRNN_ONCE double length(const Real* numbers, int64_t n) {
  const double total = sum_of_squares(numbers, n, 1);
  if (kSame<Real, float> || (total >= 0x1p-900 && total <= 0x1p+1000)) {
    return __builtin_sqrt(total);
  }
  const double scale = total < 1 ? 0x1p+600 : 0x1p-600;
  return __builtin_sqrt(sum_of_squares(numbers, n, scale)) / scale;
}

// From the partial sums that maps leave.
FUSEDRNN_ONCE static double length_of_sums(const double* squares) {
  using Wide = Vec<double>;
  constexpr int kParts = kSquareSums / Wide::width;
  Wide sums[kParts];
  FUSEDRNN_UNROLL
  for (int k = 0; k < kParts; ++k) sums[k] = Wide::load(squares + k * Wide::width);
  return __builtin_sqrt(total_of(sums));
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
