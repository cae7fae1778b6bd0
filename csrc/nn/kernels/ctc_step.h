// A step of the forward variables of CTC (Graves et al. 2006), all states of a sequence side by
// side.
#pragma once

#include "cpu/kernels/activations.h"
#include "nn/kernels/softmax.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// log(1 + t) for 0 <= t <= 2: beyond 1 as log 2 + log(1 + (t - 1) / 2).
template <class V>
FUSEDRNN_INLINE V log1p_to_two(V t) {
  using Real = typename V::real;
  const V one = V::set(Real(1)), half = V::set(Real(0.5));
  const auto small = t <= one;
  const V reduced = select(small, t, (t - one) * half);
  const V rest = select(small, V::zero(), V::set(ExpConstants<Real>::ln2));
  return rest + log1p_to_one(reduced);
}

template <class Real>
void ctc_step(const Real* prev, const Real* skip, const Real* p, Real* next, int64_t n) {
  using V = Vec<Real>;
  for (int64_t s = 0; s < n; s += V::width) {
    const int lanes = lanes_of<V>(s, n);
    const V a = V::load(prev + s, lanes), b = V::load(prev + s - 1, lanes);
    const V c = V::load(prev + s - 2, lanes) + V::load(skip + s, lanes);
    // Sorted: of the three exponentials one is 1.
    const V less = min(a, b), more = max(a, b);
    const V most = max(more, c), least = min(less, c), middle = max(less, min(more, c));
    const V sum = exp(middle - most) + exp(least - most);
    (V::load(p + s, lanes) + most + log1p_to_two(sum)).store(next + s, lanes);
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
