// What the loops of nn/ are made of, compiled once for each instruction set: the table of one set.
//
// Read by units of a single set, too: plain structs and pointers to functions only. Memory is
// aligned to its elements and dense along the last axis. Sums have one order, whatever else a call
// computes, so that a row has the same bits in any batch and on any thread.
#pragma once

#include <cstdint>

namespace fusedrnn::cpu {

// c[m,n] = start[m,n] + scale * sum over k of a[m,k] b[k,n], of m < M, n < N, k < K in rising
// order.
template <class Real>
struct Product {
  const Real* a;
  int64_t a_m, a_k;  // strides
  const Real* b;
  int64_t b_k;
  Real* c;
  int64_t c_m;
  int64_t M, N, K;
  Real scale;
  const Real* start = nullptr;  // null: zeros; it may be c
  int64_t start_m = 0;
};

template <class Real>
struct NnKernels {
  // The largest of n > 0 numbers; of NaN nothing is said.
  Real (*maximum)(const Real* x, int64_t n);
  // The sum of e^(x - offset), which are written to `out` unless it is null; it may be x. A NaN
  // comes through.
  double (*exponentials)(const Real* x, Real offset, int64_t n, Real* out);
  // The sum of x - offset.
  double (*sum)(const Real* x, Real offset, int64_t n);
  // x = x * factor - shift.
  void (*scale)(Real* x, Real factor, Real shift, int64_t n);
  // out[j,i] = x[i,j], of dense matrices.
  void (*transpose)(const Real* x, int64_t rows, int64_t columns, Real* out);
  void (*product)(const Product<Real>& product);
  // The same with columns of b b_n apart, one of b_k and b_n being 1: what is used often is copied
  // to where it is read in a row. Sums over 256 terms are added to one another, so that long ones
  // lose no more than short ones.
  void (*long_product)(const Product<Real>& product, int64_t b_n);
  // Of scores whose softmax is a: d = scale * a (d - sum of a d).
  void (*softmax_backward)(const Real* a, Real* d, Real scale, int64_t n);
  // scores[s] = sum over i of v[i] tanh(q[i] + k[i * k_stride + s]), of s < n and i < size.
  void (*additive_scores)(const Real* q, const Real* k, int64_t k_stride, const Real* v,
                          int64_t size, int64_t n, Real* scores);
  // Of one score v . tanh(q + k) with the gradient d: adds to those of q, k and v.
  void (*additive_backward)(const Real* q, const Real* k, const Real* v, Real d, int64_t size,
                            Real* dq, Real* dk, Real* dv);
  // next[s] = p[s] + log(e^prev[s] + e^prev[s-1] + e^(prev[s-2] + skip[s])), of s < n: a step of
  // CTC. No number is infinite; kLogZero stands for the logarithm of 0.
  void (*ctc_step)(const Real* prev, const Real* skip, const Real* p, Real* next, int64_t n);
};

// Sums of as many of these as there can be steps stay finite.
constexpr double kLogZero = -1e290;

}  // namespace fusedrnn::cpu
