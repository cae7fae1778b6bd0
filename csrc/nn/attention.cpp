#include "nn/attention.h"

#include <algorithm>
#include <vector>

#include "nn/share.h"

namespace fusedrnn::nn {
namespace {

using cpu::Product;

// One sequence and head: where its numbers begin, and how far apart steps are.
struct Part {
  template <class Real>
  Part(const AttentionCall<Real>& c, int64_t task)
      : length(c.lengths[task / c.N]),
        query(task * c.D),
        key_t(task * c.D * c.S),
        value(task * c.E),
        value_t(task * c.E * c.S),
        weight(task * c.S),
        query_step(c.B * c.N * c.D),
        value_step(c.B * c.N * c.E),
        weight_step(c.B * c.N * c.S) {}

  int64_t length;
  int64_t query, key_t, value, value_t, weight;
  int64_t query_step, value_step, weight_step;
};

template <class Real>
double work_of(const AttentionCall<Real>& c) {
  const double pairs = static_cast<double>(c.T) * static_cast<double>(c.S * c.B * c.N);
  return pairs * static_cast<double>(c.D * (c.v == nullptr ? 1 : 8) + c.E) / 4;
}

template <class Real>
void run_part(const AttentionForward<Real>& f, int64_t task) {
  const cpu::NnKernels<Real>& use = kernels<Real>();
  const AttentionCall<Real>& c = f.call;
  const Part at(c, task);
  const Real *const q = c.query + at.query, *const k = c.keys_t + at.key_t;
  Real* const weights = f.weights + at.weight;
  if (c.v == nullptr) {
    use.product(
        {q, at.query_step, 1, k, c.S, weights, at.weight_step, c.T, at.length, c.D, c.scale});
  }
  for (int64_t t = 0; t < c.T; ++t) {
    Real* const row = weights + t * at.weight_step;
    if (c.v != nullptr) {
      use.additive_scores(q + t * at.query_step, k, c.S, c.v, c.D, at.length, row);
    }
    const double sum = use.exponentials(row, use.maximum(row, at.length), at.length, row);
    use.scale(row, static_cast<Real>(1 / sum), Real(0), at.length);
    std::fill(row + at.length, row + c.S, Real(0));
  }
  use.product({weights, at.weight_step, 1, c.values + at.value, at.value_step, f.y + at.value,
               at.value_step, c.T, c.E, at.length, Real(1)});
}

template <class Real>
void run_all(const AttentionForward<Real>& f) {
  const int64_t tasks = f.call.B * f.call.N;
  cpu::Team team(useful_threads(tasks, work_of(f.call)));
  share_out(team, tasks, [&](int64_t task, int) { run_part(f, task); });
}

template <class Real>
void add_to_keys(const AttentionBackward<Real>& f, const Part& at, const Real* d, Real* dv) {
  const cpu::NnKernels<Real>& use = kernels<Real>();
  const AttentionCall<Real>& c = f.call;
  Real *const dq = f.dquery + at.query, *const dk = f.dkeys + at.query;
  for (int64_t t = 0; t < c.T; ++t) std::fill_n(dq + t * at.query_step, c.D, Real(0));
  for (int64_t s = 0; s < at.length; ++s) std::fill_n(dk + s * at.query_step, c.D, Real(0));
  std::fill_n(dv, c.D, Real(0));
  for (int64_t t = 0; t < c.T; ++t) {
    const int64_t of_query = t * at.query_step;
    for (int64_t s = 0; s < at.length; ++s) {
      const int64_t of_key = s * at.query_step;
      use.additive_backward(c.query + at.query + of_query, c.keys + at.query + of_key, c.v,
                            d[t * c.S + s], c.D, dq + of_query, dk + of_key, dv);
    }
  }
}

// `d`: memory for the gradients of the scores, [T,S].
template <class Real>
void run_part(const AttentionBackward<Real>& f, int64_t task, Real* d, Real* dv) {
  const cpu::NnKernels<Real>& use = kernels<Real>();
  const AttentionCall<Real>& c = f.call;
  const Part at(c, task);
  const Real *const weights = f.weights + at.weight, *const dy = f.dy + at.value;
  use.product(
      {dy, at.value_step, 1, c.values_t + at.value_t, c.S, d, c.S, c.T, at.length, c.E, Real(1)});
  for (int64_t t = 0; t < c.T; ++t) {
    Real* const row = d + t * c.S;
    if (f.dweights != nullptr) {
      const Real* const upstream = f.dweights + at.weight + t * at.weight_step;
      for (int64_t s = 0; s < at.length; ++s) row[s] += upstream[s];
    }
    use.softmax_backward(weights + t * at.weight_step, row, c.v == nullptr ? c.scale : Real(1),
                         at.length);
  }
  use.product({weights, 1, at.weight_step, dy, at.value_step, f.dvalues + at.value, at.value_step,
               at.length, c.E, c.T, Real(1)});
  if (c.v != nullptr) {
    add_to_keys(f, at, d, dv);
  } else {
    const Real *const q = c.query + at.query, *const k = c.keys + at.query;
    use.product({d, c.S, 1, k, at.query_step, f.dquery + at.query, at.query_step, c.T, c.D,
                 at.length, Real(1)});
    use.product({d, 1, c.S, q, at.query_step, f.dkeys + at.query, at.query_step, at.length, c.D,
                 c.T, Real(1)});
  }
  for (int64_t s = at.length; s < c.S; ++s) {
    std::fill_n(f.dkeys + at.query + s * at.query_step, c.D, Real(0));
    std::fill_n(f.dvalues + at.value + s * at.value_step, c.E, Real(0));
  }
}

template <class Real>
void run_all(const AttentionBackward<Real>& f) {
  const AttentionCall<Real>& c = f.call;
  const int64_t tasks = c.B * c.N, scores = c.T * c.S;
  cpu::Team team(useful_threads(tasks, work_of(c)));
  std::vector<Real> d(static_cast<size_t>(scores * team.size()));
  // Of each sequence by itself, then added up in their order.
  std::vector<Real> dv(static_cast<size_t>(c.v == nullptr ? 0 : tasks * c.D));
  share_out(team, tasks, [&](int64_t task, int thread) {
    run_part(f, task, d.data() + thread * scores, dv.data() + (c.v == nullptr ? 0 : task * c.D));
  });
  if (c.v == nullptr) return;
  for (int64_t i = 0; i < c.D; ++i) {
    double sum = 0;
    for (int64_t b = 0; b < tasks; ++b)
      sum += static_cast<double>(dv[static_cast<size_t>(b * c.D + i)]);
    f.dv[i] = static_cast<Real>(sum);
  }
}

}  // namespace

void run(const AttentionForward<float>& call) { run_all(call); }
void run(const AttentionForward<double>& call) { run_all(call); }
void run(const AttentionBackward<float>& call) { run_all(call); }
void run(const AttentionBackward<double>& call) { run_all(call); }

}  // namespace fusedrnn::nn
