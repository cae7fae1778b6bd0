// Additive attention (Bahdanau et al. 2015): scores v . tanh(q + k), and their gradients.
#pragma once

#include "cpu/kernels/activations.h"
#include "nn/kernels/softmax.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Lanes are steps of the memory: nothing is added across them.
template <class Real>
void additive_scores(const Real* q, const Real* k, int64_t k_stride, const Real* v, int64_t size,
                     int64_t n, Real* scores) {
  using V = Vec<Real>;
  for (int64_t s = 0; s < n; s += V::width) {
    const int lanes = lanes_of<V>(s, n);
    V sum = V::zero();
    for (int64_t i = 0; i < size; ++i) {
      const Real* const row = k + i * k_stride + s;
      const V key = lanes == V::width ? V::load(row) : V::load(row, lanes);
      sum = fma(V::set(v[i]), tanh(V::set(q[i]) + key), sum);
    }
    sum.store(scores + s, lanes);
  }
}

// Lanes are units. The tanh is computed again: [T,S,B,A] of them would be most of a model's memory.
template <class Real>
void additive_backward(const Real* q, const Real* k, const Real* v, Real d, int64_t size, Real* dq,
                       Real* dk, Real* dv) {
  using V = Vec<Real>;
  const V one = V::set(Real(1)), upstream = V::set(d);
  for (int64_t i = 0; i < size; i += V::width) {
    const int lanes = lanes_of<V>(i, size);
    const V u = tanh(V::load(q + i, lanes) + V::load(k + i, lanes));
    const V da = upstream * V::load(v + i, lanes) * fnma(u, u, one);
    (V::load(dq + i, lanes) + da).store(dq + i, lanes);
    (V::load(dk + i, lanes) + da).store(dk + i, lanes);
    fma(upstream, u, V::load(dv + i, lanes)).store(dv + i, lanes);
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
