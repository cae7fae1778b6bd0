// Rows of numbers: maximum, exponentials, sums.
#pragma once

#include "cpu/kernels/activations.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class V>
FUSEDRNN_INLINE int lanes_of(int64_t i, int64_t n) {
  return static_cast<int>(n - i < V::width ? n - i : V::width);
}

// The sum of the first n lanes, in four chains.
template <class V>
FUSEDRNN_INLINE double sum_of_lanes(V v, int n) {
  typename V::real lanes[V::width];
  v.store(lanes);
  double chains[4] = {0, 0, 0, 0};
  for (int i = 0; i < n; ++i) chains[i % 4] += static_cast<double>(lanes[i]);
  return (chains[0] + chains[1]) + (chains[2] + chains[3]);
}

// Adds up f(i, lanes) over vectors of n numbers: in four chains, and from time to time in double,
// so that rows of any length lose no more than short ones.
template <class V, class F>
FUSEDRNN_INLINE double sum_of_vectors(int64_t n, const F& f) {
  constexpr int W = V::width;
  constexpr int64_t kStep = 4 * W, kBlock = 64 * kStep;
  double sum = 0;
  int64_t i = 0;
  while (i + W <= n) {
    V a = V::zero(), b = a, c = a, d = a;
    const int64_t end = n - i < kBlock ? n : i + kBlock;
    for (; i + kStep <= end; i += kStep) {
      a = a + f(i, W);
      b = b + f(i + W, W);
      c = c + f(i + 2 * W, W);
      d = d + f(i + 3 * W, W);
    }
    for (; i + W <= end; i += W) a = a + f(i, W);
    sum += sum_of_lanes((a + b) + (c + d), W);
  }
  if (i < n) {
    const int lanes = lanes_of<V>(i, n);
    sum += sum_of_lanes(f(i, lanes), lanes);
  }
  return sum;
}

template <class Real>
Real maximum(const Real* x, int64_t n) {
  using V = Vec<Real>;
  constexpr int W = V::width;
  Real most = x[0];
  if (n < W) {
    for (int64_t i = 1; i < n; ++i) most = x[i] > most ? x[i] : most;
    return most;
  }
  V a = V::load(x), b = V::load(x + n - W);  // the last ones, some of them twice
  int64_t i = W;
  for (; i + 2 * W <= n; i += 2 * W) {
    a = max(a, V::load(x + i));
    b = max(b, V::load(x + i + W));
  }
  if (i + W <= n) a = max(a, V::load(x + i));
  Real lanes[W];
  max(a, b).store(lanes);
  for (int half = W / 2; half > 0; half /= 2) {
    for (int k = 0; k < half; ++k)
      lanes[k] = lanes[k + half] > lanes[k] ? lanes[k + half] : lanes[k];
  }
  return lanes[0];
}

template <class Real>
double exponentials(const Real* x, Real offset, int64_t n, Real* out) {
  using V = Vec<Real>;
  const V less = V::set(offset);
  if (out == nullptr) {
    return sum_of_vectors<V>(n, [=](int64_t i, int lanes) FUSEDRNN_LAMBDA {
      return exp((lanes == V::width ? V::load(x + i) : V::load(x + i, lanes)) - less);
    });
  }
  return sum_of_vectors<V>(n, [=](int64_t i, int lanes) FUSEDRNN_LAMBDA {
    if (lanes == V::width) {
      const V e = exp(V::load(x + i) - less);
      e.store(out + i);
      return e;
    }
    const V e = exp(V::load(x + i, lanes) - less);
    e.store(out + i, lanes);
    return e;
  });
}

template <class Real>
double sum_above(const Real* x, Real offset, int64_t n) {
  using V = Vec<Real>;
  const V less = V::set(offset);
  return sum_of_vectors<V>(n, [=](int64_t i, int lanes) FUSEDRNN_LAMBDA {
    return (lanes == V::width ? V::load(x + i) : V::load(x + i, lanes)) - less;
  });
}

template <class Real>
void scale_row(Real* x, Real factor, Real shift, int64_t n) {
  using V = Vec<Real>;
  const V by = V::set(factor), less = V::set(shift);
  int64_t i = 0;
  for (; i + V::width <= n; i += V::width) (V::load(x + i) * by - less).store(x + i);
  if (i < n) {
    const int lanes = lanes_of<V>(i, n);
    (V::load(x + i, lanes) * by - less).store(x + i, lanes);
  }
}

template <class Real>
void softmax_backward(const Real* a, Real* d, Real scale, int64_t n) {
  using V = Vec<Real>;
  const double mean = sum_of_vectors<V>(n, [=](int64_t i, int lanes) FUSEDRNN_LAMBDA {
    return V::load(a + i, lanes) * V::load(d + i, lanes);
  });
  const V less = V::set(static_cast<Real>(mean)), by = V::set(scale);
  for (int64_t i = 0; i < n; i += V::width) {
    const int lanes = lanes_of<V>(i, n);
    (V::load(a + i, lanes) * (V::load(d + i, lanes) - less) * by).store(d + i, lanes);
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
