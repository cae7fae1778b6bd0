// Softmax cross-entropy and CTC over dense arrays: losses, and gradients by the logits.
//
// Letters: N rows, T steps, B sequences, V classes, L labels. Each row or sequence is computed by
// itself: the same bits whatever the number of threads. A gradient may lie where the logits do.
#pragma once

#include <cstdint>

namespace fusedrnn::nn {

// losses[n] = (1 - smoothing) * -log p[target] + smoothing * mean over classes of -log p.
template <class Real>
struct CrossEntropy {
  const Real* logits;      // [N,V]
  const int64_t* targets;  // [N], below V where a row counts
  const uint8_t* counts;   // [N], or null: all rows do
  double smoothing, scale;
  int64_t N, V;
  double* losses;  // [N]; 0 where a row does not count
  Real* gradient;  // [N,V], of scale * losses; or null
};

void run(const CrossEntropy<float>& call);
void run(const CrossEntropy<double>& call);

// losses[b] = -log of the probability of the labels, summed over alignments in float64.
template <class Real>
struct Ctc {
  const Real* logits;             // [T,B,V]
  const int64_t* targets;         // [B,L]
  const int64_t* lengths;         // [B], at most T
  const int64_t* target_lengths;  // [B], at most L
  const double* scales;           // [B]
  int64_t blank;
  bool zero_infinity;
  int64_t T, B, V, L;
  double* losses;  // [B]
  Real* gradient;  // [T,B,V], of the sum of scales[b] * losses[b]; or null
};

void run(const Ctc<float>& call);
void run(const Ctc<double>& call);

}  // namespace fusedrnn::nn
