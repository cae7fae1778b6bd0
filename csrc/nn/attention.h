// Attention over a memory with lengths, dense arrays.
//
// Letters: T steps of queries, S of the memory, B sequences, N heads, D sizes of queries and keys
// of a head, E of its values. Each sequence and head is computed by itself, each step of it as if
// it were alone: the same bits whatever the number of threads and of steps. "_t": transposed for
// each sequence and head, the steps of the memory last.
#pragma once

#include <cstdint>

namespace fusedrnn::nn {

// What all kinds share. Weights beyond the lengths are 0, and values there are not looked at.
template <class Real>
struct AttentionCall {
  int64_t T, S, B, N, D, E;
  const int64_t* lengths;  // [B], 1 to S
  Real scale;              // of dot products
  const Real* query;       // [T,B,N,D]
  const Real* keys;        // [S,B,N,D]
  const Real* keys_t;      // [B,N,D,S]
  const Real* values;      // [S,B,N,E]
  const Real* values_t;    // [B,N,E,S]
  const Real* v;           // [D] of additive scores, whose N is 1; null for dot products
};

// Of `call` it reads query, keys_t, values and v.
template <class Real>
struct AttentionForward {
  AttentionCall<Real> call;
  Real* weights;  // [T,B,N,S]
  Real* y;        // [T,B,N,E]
};

// Of `call` it reads query, keys, values_t and v.
template <class Real>
struct AttentionBackward {
  AttentionCall<Real> call;
  const Real* weights;   // [T,B,N,S]
  const Real* dy;        // [T,B,N,E]
  const Real* dweights;  // [T,B,N,S], or null
  Real* dquery;          // as the query
  Real* dkeys;           // as the keys
  Real* dvalues;         // as the values
  Real* dv;              // as v
};

void run(const AttentionForward<float>& call);
void run(const AttentionForward<double>& call);
void run(const AttentionBackward<float>& call);
void run(const AttentionBackward<double>& call);

}  // namespace fusedrnn::nn
