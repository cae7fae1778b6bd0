// The types of a kernel: how the caller's arrays are stored, how the operands of products are
// stored, and what they are rounded to by it. Sums, gates, c and the gradients that pass from step
// to step are always Real.
#pragma once

#include <type_traits>

#include "core/problem.h"
#include "cuda/device/dual.h"
#include "cuda/device/number.h"

namespace fusedrnn::cuda {

using device::Bf16;
using device::Dual;
using device::Half;

template <class Number>
constexpr Dtype kDtypeOf = Dtype::float32;
template <>
inline constexpr Dtype kDtypeOf<double> = Dtype::float64;
template <>
inline constexpr Dtype kDtypeOf<Bf16> = Dtype::bfloat16;
template <>
inline constexpr Dtype kDtypeOf<Half> = Dtype::float16;
template <>
inline constexpr Dtype kDtypeOf<Dual<float>> = Dtype::dual32;
template <>
inline constexpr Dtype kDtypeOf<Dual<double>> = Dtype::dual64;

// What sums and maths of an Edge are, and what constants beside them are.
template <class Edge>
struct RealOf {
  using type = float;
  using plain = float;
};
template <>
struct RealOf<double> {
  using type = double;
  using plain = double;
};
template <class R>
struct RealOf<Dual<R>> {
  using type = Dual<R>;
  using plain = R;
};

// Edge    x, y, weights, biases, states and gradients as the caller has them
// Row     operands of the forward products: states, staged inputs and weights
// Delta   gradients of the gates, and the other operands of the backward products
//
//   float32 (with and without tfloat32), float64   <itself, itself, itself>
//   dual numbers of these                          <itself, itself, itself>
//   bfloat16                                       <Bf16, Bf16, Bf16>
//   float16                                        <Half, Half, float>: gradients can be too small
//                                                  for Half; products take float as tfloat32, which
//                                                  has as many bits
//   float32 computed in bfloat16                   <float, Bf16, Bf16>
template <class Edge_, class Row_, class Delta_>
struct Format {
  using Edge = Edge_;
  using Row = Row_;
  using Delta = Delta_;
  using Real = typename RealOf<Edge>::type;
  using Plain = typename RealOf<Edge>::plain;

  // Whether the states are more exact than what products multiply, so that h exists twice.
  static constexpr bool kMixed = std::is_same_v<Edge, float> && !std::is_same_v<Row, float>;
  using State = std::conditional_t<kMixed, float, Row>;  // of h; c is Real
};

// x as a Number holds it.
template <class Number, class Real>
FUSEDRNN_DEVICE Real round_to(Real x) {
  if constexpr (std::is_same_v<Number, Real>) {
    return x;
  } else {
    Number rounded;
    device::store(&rounded, x);
    return device::load(&rounded);
  }
}

}  // namespace fusedrnn::cuda
