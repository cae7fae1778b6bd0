// Rules by which parameters follow their gradients, number by number; equations as in PyTorch.
//
// Letters: p a parameter's number, g its gradient, lr the rate. Everything is computed in the type
// of the arrays, with factors that were computed in double.
#pragma once

#include <cstdint>

namespace fusedrnn::optimizers {

// Numbers in a row, of one parameter: what a rule reads and writes. No two of the arrays overlap.
template <class T>
struct Numbers {
  static constexpr int kMaxStates = 3;

  T* value;
  const T* gradient;
  T* state[kMaxStates];  // as each rule says; the others are not looked at
  int64_t size;

  Numbers part(int64_t begin, int64_t end) const {
    Numbers part = *this;
    part.value += begin;
    part.gradient += begin;
    for (T*& s : part.state) s = s == nullptr ? nullptr : s + begin;
    part.size = end - begin;
    return part;
  }
};

// g += weight_decay p; without momentum p -= lr g. With it m = momentum m + g and p -= lr m, or by
// Nesterov p -= lr (g + momentum m). State 0: m, where there is momentum.
struct Sgd {
  double rate, momentum, weight_decay;
  bool nesterov;

  int states() const { return momentum != 0 ? 1 : 0; }
  void apply(const Numbers<float>& numbers) const;
  void apply(const Numbers<double>& numbers) const;
};

// Kingma and Ba (2015): m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2,
// p -= lr m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + epsilon). Weight decay comes before:
// g += weight_decay p, or decoupled (Loshchilov and Hutter 2019) p -= lr weight_decay p.
// States: m, v.
struct Adam {
  double rate, beta1, beta2, epsilon, weight_decay;
  bool decoupled;
  int64_t step;  // from 1

  int states() const { return 2; }
  void apply(const Numbers<float>& numbers) const;
  void apply(const Numbers<double>& numbers) const;
};

// Tieleman and Hinton (2012): g += weight_decay p, v = alpha v + (1 - alpha) g^2,
// u = g / (sqrt(v) + epsilon), and as of `Sgd` p -= lr u, or by momentum p -= lr m with
// m = momentum m + u. Centered (Graves 2013): a = alpha a + (1 - alpha) g, and v - a^2 in the place
// of v under the root. States: v, then m where there is momentum, then a where it is centered.
struct RmsProp {
  double rate, alpha, epsilon, weight_decay, momentum;
  bool centered;

  int states() const { return 1 + (momentum != 0 ? 1 : 0) + (centered ? 1 : 0); }
  void apply(const Numbers<float>& numbers) const;
  void apply(const Numbers<double>& numbers) const;
};

}  // namespace fusedrnn::optimizers
