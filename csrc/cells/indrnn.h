// IndRNN (Li et al. 2018, arXiv:1803.04831): h = act(a + w_hh * h_prev), a weight a unit.
#pragma once

#include "cells/rnn.h"

namespace fusedrnn::cells {

template <class Activation>
struct IndRnn {
  static constexpr int kGates = 1;
  static constexpr Parameter kParameters[] = {
      {"w_ih", {'H'}, {'I'}}, {"w_hh", {'H'}, {}}, {"b_ih", {'H'}, {}, true}};
  enum { kWih, kWhh, kBih };
  static constexpr State kStates[] = {{"h", 'H'}};
  static constexpr Product kInput{kWih, kBih, 0, 1};
  static constexpr Stage kStages[] = {{}};
  static constexpr int kSaved = 1;  // h itself
  static constexpr int kUnitVectors = 2;

  enum Delta { kPreActivation, kWeight };
  static constexpr int kDeltas = 2;
  static constexpr int input_delta(int) { return kPreActivation; }
  static constexpr int recurrent_delta(int) { return -1; }
  static constexpr int vector_delta(int) { return kWeight; }
  static constexpr int delta_stage(int) { return 0; }

  template <int Index, class V>
  FUSEDRNN_CELL_FN void forward(const V* a, const V*, const V* w, const V* prev, V* saved, V* next,
                                V*) {
    next[0] = Activation::value(fma(w[0], prev[0], a[0]));
    saved[0] = next[0];
  }

  template <int Index, class V>
  FUSEDRNN_CELL_FN void backward(const V* saved, const V* w, const V* prev, const V* dnext, V,
                                 V* delta, V* dprev) {
    delta[kPreActivation] = Activation::gradient(saved[0], dnext[0]);
    delta[kWeight] = delta[kPreActivation] * prev[0];
    dprev[0] = delta[kPreActivation] * w[0];
  }
};

}  // namespace fusedrnn::cells
