#include "nn/linear.h"

#include <algorithm>

#include "nn/share.h"

namespace fusedrnn::nn {
namespace {

using cpu::Product;

// Parts of a result: of rows so many that what is packed for them is used often, and that what they
// read of a stays in a cache.
constexpr int64_t kRows = 256, kColumns = 64;

int64_t parts(int64_t size, int64_t part) { return (size + part - 1) / part; }

double work_of(int64_t M, int64_t N, int64_t K) {
  return static_cast<double>(M) * static_cast<double>(N) * static_cast<double>(K) / 8;
}

template <class Real>
void multiply(const Product<Real>& whole, int64_t b_n) {
  if (whole.K == 0) {  // no part would write
    for (int64_t m = 0; m < whole.M; ++m) {
      if (whole.start == nullptr) {
        std::fill_n(whole.c + m * whole.c_m, whole.N, Real(0));
      } else {
        std::copy_n(whole.start + m * whole.start_m, whole.N, whole.c + m * whole.c_m);
      }
    }
    return;
  }
  const int64_t across = parts(whole.N, kColumns), tasks = parts(whole.M, kRows) * across;
  cpu::Team team(useful_threads(tasks, work_of(whole.M, whole.N, whole.K)));
  share_out(team, tasks, [&](int64_t task, int) {
    const int64_t m = task / across * kRows, n = task % across * kColumns;
    Product<Real> part = whole;
    part.M = std::min(whole.M - m, kRows);
    part.N = std::min(whole.N - n, kColumns);
    part.a += m * whole.a_m;
    part.b += n * b_n;
    part.c += m * whole.c_m + n;
    if (whole.start != nullptr) part.start += m * whole.start_m + n;
    kernels<Real>().long_product(part, b_n);
  });
}

// In double.
template <class Real>
void sum_rows(const Real* rows, int64_t N, int64_t E, Real* sum) {
  constexpr int64_t kPart = 64;
  const int64_t tasks = parts(E, kPart);
  cpu::Team team(useful_threads(tasks, work_of(N, E, 1)));
  share_out(team, tasks, [&](int64_t task, int) {
    const int64_t first = task * kPart, width = std::min(E - first, kPart);
    double sums[kPart] = {};
    for (int64_t n = 0; n < N; ++n) {
      const Real* const row = rows + n * E + first;
      for (int64_t e = 0; e < width; ++e) sums[e] += static_cast<double>(row[e]);
    }
    for (int64_t e = 0; e < width; ++e) sum[first + e] = static_cast<Real>(sums[e]);
  });
}

template <class Real>
void run_all(const LinearForward<Real>& f) {
  multiply<Real>({f.x, f.I, 1, f.w, 1, f.y, f.O, f.N, f.O, f.I, Real(1), f.bias, 0}, f.I);
}

template <class Real>
void run_all(const LinearBackward<Real>& f) {
  multiply<Real>({f.dy, f.O, 1, f.w, f.I, f.dx, f.I, f.N, f.I, f.O, Real(1)}, 1);
  multiply<Real>({f.dy, 1, f.O, f.x, f.I, f.dw, f.I, f.O, f.I, f.N, Real(1)}, 1);
  if (f.dbias != nullptr) sum_rows(f.dy, f.N, f.O, f.dbias);
}

template <class Real>
void run_all(const SumOfRows<Real>& f) {
  constexpr int64_t kPart = 16;  // threads take columns: each of them meets the rows in order
  cpu::Team team(useful_threads(parts(f.E, kPart), static_cast<double>((f.N + f.V) * f.E) / 2));
  const int64_t tasks = team.size();
  share_out(team, tasks, [&](int64_t task, int) {
    const int64_t all = parts(f.E, kPart);
    const int64_t first = all * task / tasks * kPart;
    const int64_t width = std::min(all * (task + 1) / tasks * kPart, f.E) - first;
    for (int64_t v = 0; v < f.V; ++v) std::fill_n(f.sums + v * f.E + first, width, Real(0));
    for (int64_t n = 0; n < f.N; ++n) {
      if (f.places[n] < 0) continue;
      const Real* const row = f.rows + n * f.E + first;
      Real* const sum = f.sums + f.places[n] * f.E + first;
      for (int64_t e = 0; e < width; ++e) sum[e] += row[e];
    }
  });
}

}  // namespace

void run(const LinearForward<float>& call) { run_all(call); }
void run(const LinearForward<double>& call) { run_all(call); }
void run(const LinearBackward<float>& call) { run_all(call); }
void run(const LinearBackward<double>& call) { run_all(call); }
void run(const SumOfRows<float>& call) { run_all(call); }
void run(const SumOfRows<double>& call) { run_all(call); }

}  // namespace fusedrnn::nn
