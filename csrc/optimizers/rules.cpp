// The loops, for the compiler to vectorise: with the machine's baseline instructions, which are
// enough where arrays come from memory and not from a cache.
#include "optimizers/rules.h"

#include <cmath>
#include <type_traits>
#include <utility>

namespace fusedrnn::optimizers {
namespace {

// Calls body with each flag as a type: a loop without a branch for every combination.
template <class Body>
void with_flags(Body&& body) {
  body();
}
template <class Body, class... Flags>
void with_flags(Body&& body, bool flag, Flags... others) {
  const auto fixed = [&](auto known) {
    with_flags([&](auto... rest) { body(known, rest...); }, others...);
  };
  if (flag) {
    fixed(std::true_type{});
  } else {
    fixed(std::false_type{});
  }
}

template <class T>
void apply_sgd(const Sgd& rule, const Numbers<T>& numbers) {
  T* const p = numbers.value;
  const T* const gradient = numbers.gradient;
  T* const m = numbers.state[0];
  const auto rate = static_cast<T>(rule.rate);
  const auto momentum = static_cast<T>(rule.momentum);
  const auto weight_decay = static_cast<T>(rule.weight_decay);
  with_flags(
      [&](auto decays, auto remembers, auto nesterov) {
        for (int64_t i = 0; i < numbers.size; ++i) {
          T g = gradient[i];
          if constexpr (decays) g += weight_decay * p[i];
          if constexpr (remembers) {
            m[i] = momentum * m[i] + g;
            g = nesterov ? g + momentum * m[i] : m[i];
          }
          p[i] -= rate * g;
        }
      },
      rule.weight_decay != 0, rule.momentum != 0, rule.nesterov);
}

template <class T>
void apply_adam(const Adam& rule, const Numbers<T>& numbers) {
  T* const p = numbers.value;
  const T* const gradient = numbers.gradient;
  T* const m = numbers.state[0];
  T* const v = numbers.state[1];
  const auto step = static_cast<double>(rule.step);
  const auto rate = static_cast<T>(rule.rate / (1 - std::pow(rule.beta1, step)));
  const auto unbiased = static_cast<T>(1 / std::sqrt(1 - std::pow(rule.beta2, step)));
  const auto beta1 = static_cast<T>(rule.beta1), new1 = static_cast<T>(1 - rule.beta1);
  const auto beta2 = static_cast<T>(rule.beta2), new2 = static_cast<T>(1 - rule.beta2);
  const auto epsilon = static_cast<T>(rule.epsilon);
  const auto weight_decay = static_cast<T>(rule.weight_decay);
  const auto shrink = static_cast<T>(1 - rule.rate * rule.weight_decay);
  with_flags(
      [&](auto decays, auto decoupled) {
        for (int64_t i = 0; i < numbers.size; ++i) {
          T g = gradient[i], value = p[i];
          if constexpr (decays && decoupled) value *= shrink;
          if constexpr (decays && !decoupled) g += weight_decay * value;
          m[i] = beta1 * m[i] + new1 * g;
          v[i] = beta2 * v[i] + new2 * (g * g);
          p[i] = value - rate * m[i] / (std::sqrt(v[i]) * unbiased + epsilon);
        }
      },
      rule.weight_decay != 0, rule.decoupled);
}

template <class T>
void apply_rms_prop(const RmsProp& rule, const Numbers<T>& numbers) {
  T* const p = numbers.value;
  const T* const gradient = numbers.gradient;
  T* const v = numbers.state[0];
  T* const m = numbers.state[1];
  T* const a = numbers.state[rule.momentum != 0 ? 2 : 1];
  const auto rate = static_cast<T>(rule.rate);
  const auto alpha = static_cast<T>(rule.alpha), fresh = static_cast<T>(1 - rule.alpha);
  const auto epsilon = static_cast<T>(rule.epsilon);
  const auto weight_decay = static_cast<T>(rule.weight_decay);
  const auto momentum = static_cast<T>(rule.momentum);
  with_flags(
      [&](auto decays, auto remembers, auto centered) {
        for (int64_t i = 0; i < numbers.size; ++i) {
          T g = gradient[i];
          if constexpr (decays) g += weight_decay * p[i];
          v[i] = alpha * v[i] + fresh * (g * g);
          T spread = v[i];
          if constexpr (centered) {
            a[i] = alpha * a[i] + fresh * g;
            spread -= a[i] * a[i];
            spread = spread < 0 ? T(0) : spread;  // by rounding; NaN stays
          }
          T update = g / (std::sqrt(spread) + epsilon);
          if constexpr (remembers) update = m[i] = momentum * m[i] + update;
          p[i] -= rate * update;
        }
      },
      rule.weight_decay != 0, rule.momentum != 0, rule.centered);
}

}  // namespace

void Sgd::apply(const Numbers<float>& numbers) const { apply_sgd(*this, numbers); }
void Sgd::apply(const Numbers<double>& numbers) const { apply_sgd(*this, numbers); }
void Adam::apply(const Numbers<float>& numbers) const { apply_adam(*this, numbers); }
void Adam::apply(const Numbers<double>& numbers) const { apply_adam(*this, numbers); }
void RmsProp::apply(const Numbers<float>& numbers) const { apply_rms_prop(*this, numbers); }
void RmsProp::apply(const Numbers<double>& numbers) const { apply_rms_prop(*this, numbers); }

}  // namespace fusedrnn::optimizers
