// Linear layers, and sums of rows by number: y = x w^T + bias, and the gradients of both.
//
// Letters: N rows, I inputs, O outputs, E numbers of a row, V places. Sums have one order, whatever
// the number of threads; each row of y and dx is computed as if it were alone.
#pragma once

#include <cstdint>

namespace fusedrnn::nn {

template <class Real>
struct LinearForward {
  const Real* x;     // [N,I]
  const Real* w;     // [O,I]
  const Real* bias;  // [O], or null
  int64_t N, I, O;
  Real* y;  // [N,O]
};

void run(const LinearForward<float>& call);
void run(const LinearForward<double>& call);

template <class Real>
struct LinearBackward {
  const Real* x;   // [N,I]
  const Real* w;   // [O,I]
  const Real* dy;  // [N,O]
  int64_t N, I, O;
  Real* dx;     // [N,I]
  Real* dw;     // [O,I]
  Real* dbias;  // [O], or null
};

void run(const LinearBackward<float>& call);
void run(const LinearBackward<double>& call);

// sums[v] = the rows whose place is v, added up in their order; a place below 0 is none.
template <class Real>
struct SumOfRows {
  const int64_t* places;  // [N], below V
  const Real* rows;       // [N,E]
  int64_t N, E, V;
  Real* sums;  // [V,E]
};

void run(const SumOfRows<float>& call);
void run(const SumOfRows<double>& call);

}  // namespace fusedrnn::nn
