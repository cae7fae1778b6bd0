// The types of a kernel: how its arrays are stored outside, how the operands of its products are
// stored inside, and what they are rounded to. Sums and gate maths are always in Real.
#pragma once

#include "cells/cell.h"
#include "cpu/kernels/dot.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class Number>
struct RealOf {
  using type = float;
};
template <>
struct RealOf<double> {
  using type = double;
};

// Edge    x, y, weights, biases, states and gradients as the caller has them
// Row     operands of the products in rows: states, staged inputs, gate gradients
// Panel   packed weights
//
//   float32, float64              <float, float, float>, <double, double, double>
//   dual numbers of these         <Dual<float>, Dual<float>, Dual<float>>, ...
//   bfloat16                      <Bf16, Bf16, Bf16> where the set multiplies them, else
//                                 <Bf16, float, Bf16>: rows hold floats that are bfloat16 numbers
//   float16                       <Half, float, Half>
//   float32 computed in bfloat16  <float, Bf16, Bf16> or <float, float, Bf16>
//   float32 computed in int8      <float, Offset8, Int8> or <float, float, Int8>, inference alone
template <class Edge_, class Row_, class Panel_>
struct Format {
  using Edge = Edge_;
  using Row = Row_;
  using Panel = Panel_;
  using Real = typename RealOf<Edge>::type;
  using V = Vec<Real>;
  using Dot = FUSEDRNN_ISA::Dot<Row, Panel>;
  using Pair = FUSEDRNN_ISA::Dot<Row, Row>;  // of products of two rows (weight gradients)
  using MatrixUnit = FUSEDRNN_ISA::MatrixUnit<Row, Panel>;
  using Saved = Panel;  // gates that forward leaves for backward

  static constexpr bool kQuantised = kSame<Panel, Int8>;

  // Rows and panels are filled up with zeros to multiples of this along k.
  static constexpr int kDepthUnit =
      Dot::kDepth > MatrixUnit::kDepth ? Dot::kDepth : MatrixUnit::kDepth;
  static FUSEDRNN_MEMBER int64_t padded(int64_t depth) { return round_up(depth, kDepthUnit); }

  // Whether the states are more exact than what products multiply, so that h exists twice.
  static constexpr bool kMixed = kSame<Edge, float> && !kSame<Panel, float>;
  using State = typename Choose<kMixed, float, Row>::type;  // of h; other states are Real

  // What a stage passes on to the next one: quantised operands need the whole row's scale first.
  using Passed = typename Choose<kQuantised, Real, Row>::type;

  // Whether a tile is converted before and after a map, which computes with Real.
  static constexpr bool kConverts = !kSame<Edge, Real> || !(kSame<Panel, Real> || kQuantised);

  // Whether the products can read the caller's x where it lies.
  static constexpr bool kStage = kMixed || !kSame<Edge, Row> || Dot::kDepth > 1;

  // h as it leaves the step.
  static FUSEDRNN_MEMBER V round_state(V h) { return round_to<Edge>(h); }
  // What multiplies weights in the forward products (h, r * h, x) and gradients in the backward
  // ones. Gradients can be too small for Half: they stay floats.
  static FUSEDRNN_MEMBER V round_operand(V x) { return round_to<Panel>(x); }
  static FUSEDRNN_MEMBER V round_gradient(V d) {
    if constexpr (kSame<Panel, Half>) {
      return d;
    } else {
      return round_to<Panel>(d);
    }
  }

 private:
  template <class Number>
  static FUSEDRNN_MEMBER V round_to(V x) {
    if constexpr (kSame<Number, Real> || kSame<Number, Row> || kQuantised) {
      return x;  // exact already, or rounded by the store that follows
    } else {
      Number rounded[V::width];
      x.store(rounded);
      return V::load(rounded);
    }
  }
};

// What forward leaves for backward. Exact stay gates that a later stage of the same step reads, and
// those of cells with constants, where it says what a limit did; and normalised numbers.
template <class Cell, class F>
using SavedOf = typename Choose<(cells::kStageCount<Cell> > 1 || cells::kConstantCount<Cell> > 0 ||
                                 cells::kNormCount<Cell> > 0 || F::kQuantised),
                                typename F::Real, typename F::Saved>::type;

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
