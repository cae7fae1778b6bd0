// minGRU and minLSTM (Feng et al. 2024, arXiv:2410.01201): gates and candidate see the input alone,
// so a step has no product and h moves as a weighted mean.
//   minGRU, gates z, h:     z = s(a_z),  h = (1 - z) * h_prev + z * g(a_h)
//   minLSTM, gates f, i, h: f' = s(a_f) / (s(a_f) + s(a_i)), i' = 1 - f',
//                           h = f' * h_prev + i' * g(a_h)
// g is the identity, or the paper's positive function, x + 0.5 for x >= 0 and s(x) below.
#pragma once

#include "cells/rnn.h"

namespace fusedrnn::cells {

// Of the argument, whose sign tells on which side of the kink it lies: so gradient() takes it, too.
struct Positive {
  template <class V>
  FUSEDRNN_CELL_FN V value(V x) {
    return select(V::zero() <= x, x + V::set(0.5f), sigmoid(x));
  }
  template <class V>
  FUSEDRNN_CELL_FN V gradient(V x, V dy) {
    return select(V::zero() <= x, dy, Sigmoid::gradient(sigmoid(x), dy));
  }
};

// What a cell without a recurrent product has: weights for x and a bias.
template <int Gates>
struct InputAlone {
  static constexpr int kGates = Gates;
  static constexpr Parameter kParameters[] = {{"w_ih", {'H', Gates}, {'I'}},
                                              {"b_ih", {'H', Gates}, {}, true}};
  enum { kWih, kBih };
  static constexpr State kStates[] = {{"h", 'H'}};
  static constexpr Product kInput{kWih, kBih, 0, Gates};
  static constexpr Stage kStages[] = {{}};
  static constexpr int kUnitVectors = 1;
  static constexpr int kDeltas = Gates;
  static constexpr int input_delta(int gate) { return gate; }
  static constexpr int recurrent_delta(int) { return -1; }
  static constexpr int vector_delta(int) { return -1; }
  static constexpr int delta_stage(int) { return 0; }
};

template <class Candidate>
struct MinGru : InputAlone<2> {
  static constexpr int kSaved = 2;
  enum Gate { Z, H };

  template <int Index, class V>
  FUSEDRNN_CELL_FN void forward(const V* a, const V*, const V*, const V* prev, V* saved, V* next,
                                V*) {
    saved[Z] = sigmoid(a[Z]);
    saved[H] = a[H];
    next[0] = fma(saved[Z], Candidate::value(a[H]) - prev[0], prev[0]);
  }

  template <int Index, class V>
  FUSEDRNN_CELL_FN void backward(const V* saved, const V*, const V* prev, const V* dnext, V,
                                 V* delta, V* dprev) {
    const V z = saved[Z], keep = V::set(1) - z;
    delta[Z] = dnext[0] * (Candidate::value(saved[H]) - prev[0]) * z * keep;
    delta[H] = Candidate::gradient(saved[H], dnext[0] * z);
    dprev[0] = dnext[0] * keep;
  }
};

template <class Candidate>
struct MinLstm : InputAlone<3> {
  static constexpr int kSaved = 3;  // the pre-activations: what is made of them is made again
  enum Gate { F, I, H };

  template <int Index, class V>
  FUSEDRNN_CELL_FN void forward(const V* a, const V*, const V*, const V* prev, V* saved, V* next,
                                V*) {
    for (int g = 0; g < kGates; ++g) saved[g] = a[g];
    next[0] = fma(input_share(a), Candidate::value(a[H]) - prev[0], prev[0]);
  }

  template <int Index, class V>
  FUSEDRNN_CELL_FN void backward(const V* saved, const V*, const V* prev, const V* dnext, V,
                                 V* delta, V* dprev) {
    const V i = input_share(saved), keep = V::set(1) - i;
    const V slope = dnext[0] * (Candidate::value(saved[H]) - prev[0]) * i * keep;
    delta[F] = -slope * sigmoid(-saved[F]);
    delta[I] = slope * sigmoid(-saved[I]);
    delta[H] = Candidate::gradient(saved[H], dnext[0] * i);
    dprev[0] = dnext[0] * keep;
  }

 private:
  // i' = 1 / (1 + s(a_f) / s(a_i)), by logarithms: also where both gates underflow.
  template <class V>
  FUSEDRNN_CELL_FN V input_share(const V* a) {
    return sigmoid(softplus(-a[F]) - softplus(-a[I]));
  }
};

}  // namespace fusedrnn::cells
