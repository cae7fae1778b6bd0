#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "nn/losses.h"
#include "nn/share.h"

namespace fusedrnn::nn {
namespace {

using cpu::kLogZero;

constexpr int64_t kBefore = 2;  // numbers before a row of states that a step reads: kLogZero

// What a thread needs for one sequence after another.
class Sequence {
 public:
  Sequence(int64_t steps, int64_t labels)
      : row_(2 * labels + 1 + kBefore),
        classes_(size_of(row_)),
        skip_(size_of(row_)),
        skip_back_(size_of(row_)),
        p_(size_of(steps * row_)),
        alpha_(size_of(steps * row_)),
        beta_(size_of(2 * row_)),
        p_back_(size_of(row_)),
        occupied_(size_of(row_)) {}

  template <class Real>
  void run(const Ctc<Real>& call, int64_t b) {
    steps_ = call.lengths[b];
    states_ = 2 * call.target_lengths[b] + 1;
    read_labels(call, b);
    for (int64_t t = 0; t < steps_; ++t) read_step(call, t, b);
    const double loss = forward();
    const bool impossible = std::isinf(loss);
    call.losses[b] = impossible && call.zero_infinity ? 0 : loss;
    if (call.gradient == nullptr) return;
    const auto row_of = [&](int64_t t) { return call.gradient + (t * call.B + b) * call.V; };
    for (int64_t t = steps_; t < call.T; ++t) std::fill_n(row_of(t), call.V, Real(0));
    if (impossible || std::isnan(loss)) {
      const Real all =
          impossible && call.zero_infinity ? Real(0) : std::numeric_limits<Real>::quiet_NaN();
      for (int64_t t = 0; t < steps_; ++t) std::fill_n(row_of(t), call.V, all);
      return;
    }
    backward(loss, call.scales[b], call.blank, row_of);
  }

 private:
  static size_t size_of(int64_t n) { return static_cast<size_t>(n); }
  double* p(int64_t t) { return p_.data() + t * row_; }
  double* alpha(int64_t t) { return alpha_.data() + t * row_ + kBefore; }
  double* beta(int64_t t) { return beta_.data() + (t % 2) * row_ + kBefore; }

  // Labels with blanks around them, and where a blank between two may be passed over.
  template <class Real>
  void read_labels(const Ctc<Real>& call, int64_t b) {
    const int64_t* const labels = call.targets + b * call.L;
    for (int64_t s = 0; s < states_; ++s) {
      classes_[size_of(s)] = s % 2 == 0 ? call.blank : labels[s / 2];
      const bool may = s % 2 == 1 && s >= 2 && labels[s / 2] != labels[s / 2 - 1];
      skip_[size_of(s)] = may ? 0 : kLogZero;
    }
    for (int64_t r = 0; r < states_; ++r) {
      const int64_t to = states_ - 1 - r + 2;  // from the state that r is, seen from the end
      skip_back_[size_of(r)] = to < states_ ? skip_[size_of(to)] : kLogZero;
    }
  }

  // The logarithms of the states' probabilities; the gradient's row becomes that of the softmax.
  template <class Real>
  void read_step(const Ctc<Real>& call, int64_t t, int64_t b) {
    const cpu::NnKernels<Real>& use = kernels<Real>();
    const int64_t row = (t * call.B + b) * call.V;
    const Real* const x = call.logits + row;
    double* const states = p(t);
    for (int64_t s = 0; s < states_; ++s) states[s] = static_cast<double>(x[classes_[size_of(s)]]);
    const Real most = use.maximum(x, call.V);
    Real* const gradient = call.gradient == nullptr ? nullptr : call.gradient + row;
    const double sum = use.exponentials(x, most, call.V, gradient);
    const double log_sum = static_cast<double>(most) + std::log(sum);
    for (int64_t s = 0; s < states_; ++s) {
      const double log_p = states[s] - log_sum;
      states[s] = log_p < kLogZero ? kLogZero : log_p;  // NaN stays
    }
    if (gradient != nullptr) {
      use.scale(gradient, static_cast<Real>(call.scales[b] / sum), Real(0), call.V);
    }
  }

  void begin(double* states, const double* p_of_step) const {
    std::fill_n(states - kBefore, states_ + kBefore, kLogZero);
    std::copy_n(p_of_step, std::min<int64_t>(2, states_), states);
  }

  double forward() {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    if (steps_ == 0) return states_ == 1 ? 0 : kInfinity;
    begin(alpha(0), p(0));
    for (int64_t t = 1; t < steps_; ++t) {
      std::fill_n(alpha(t) - kBefore, kBefore, kLogZero);
      kernels<double>().ctc_step(alpha(t - 1), skip_.data(), p(t), alpha(t), states_);
    }
    const double* const last = alpha(steps_ - 1) + states_ - 1;
    const double a = last[0], b = states_ > 1 ? last[-1] : kLogZero;
    if (std::isnan(a) || std::isnan(b)) return std::numeric_limits<double>::quiet_NaN();
    const double most = std::max(a, b);
    if (most <= kLogZero / 2) return kInfinity;
    return -(most + std::log1p(std::exp(std::min(a, b) - most)));
  }

  // Subtracts from the softmax's gradients the probability of each state. The backward variables
  // are those forward of the sequence read from its end, whose states are in the other order.
  template <class RowOf>
  void backward(double loss, double scale, int64_t blank, const RowOf& row_of) {
    const cpu::NnKernels<double>& use = kernels<double>();
    for (int64_t t = steps_ - 1; t >= 0; --t) {
      std::reverse_copy(p(t), p(t) + states_, p_back_.data());
      if (t == steps_ - 1) {
        begin(beta(t), p_back_.data());
      } else {
        std::fill_n(beta(t) - kBefore, kBefore, kLogZero);
        use.ctc_step(beta(t + 1), skip_back_.data(), p_back_.data(), beta(t), states_);
      }
      for (int64_t s = 0; s < states_; ++s) {
        // Both variables have p of this step.
        occupied_[size_of(s)] = alpha(t)[s] + (beta(t)[states_ - 1 - s] - p(t)[s]) + loss;
      }
      use.exponentials(occupied_.data(), 0.0, states_, occupied_.data());
      auto* const gradient = row_of(t);
      using Real = std::remove_reference_t<decltype(*gradient)>;
      double blanks = 0;
      for (int64_t s = 0; s < states_; s += 2) blanks += occupied_[size_of(s)];
      gradient[blank] -= static_cast<Real>(scale * blanks);
      for (int64_t s = 1; s < states_; s += 2) {
        gradient[classes_[size_of(s)]] -= static_cast<Real>(scale * occupied_[size_of(s)]);
      }
    }
  }

  int64_t row_, steps_ = 0, states_ = 0;
  std::vector<int64_t> classes_;
  std::vector<double> skip_, skip_back_, p_, alpha_, beta_, p_back_, occupied_;
};

template <class Real>
void run_all(const Ctc<Real>& call) {
  const double work = static_cast<double>(call.T) * static_cast<double>(call.B) *
                      static_cast<double>(call.V + 8 * call.L);
  cpu::Team team(useful_threads(call.B, work));
  std::vector<Sequence> threads(static_cast<size_t>(team.size()), Sequence(call.T, call.L));
  share_out(team, call.B,
            [&](int64_t b, int thread) { threads[static_cast<size_t>(thread)].run(call, b); });
}

}  // namespace

void run(const Ctc<float>& call) { run_all(call); }
void run(const Ctc<double>& call) { run_all(call); }

}  // namespace fusedrnn::nn
