// What a cell is, for every engine.
//
// A cell is a struct of compile-time numbers and of two functions over a vector type V: one vector
// of hidden units of one sequence at one time step. V has the four operators, unary minus,
// V::set(x), V::zero(), and, found by argument-dependent lookup, fma(a,b,c) = a*b+c, fnma(a,b,c) =
// c-a*b, a <= b (false for NaN), select(mask,a,b), sigmoid, tanh and relu. Nothing else is used, so
// that the same equations compile for each CPU instruction set and for CUDA.
//
//   kGates     G: gate blocks of w_ih, w_hh and the biases
//   kStates    1 (h) or 2 (h and c); state 0 is h, the one that the recurrent product reads
//   kSaved     vectors a unit that forward leaves for backward
//   kPhases    1, or 2 where a second recurrent product depends on gates of the first
//              (GRU with the reset gate before the product). Phase 0 multiplies h, phase 1 what
//              forward<0> returns through `input`.
//   kDeltas    D: blocks of gradients that backward produces, in an order of its choice: blocks
//              0..G-1 are the gradients of a = W_ih x + b_ih; the gradients of u = W_hh h + b_hh of
//              one phase are contiguous too, in gate order. A gate whose two gradients agree has
//              one block.
//   kUnitVectors  vectors of units in one packed panel (a panel has G * kUnitVectors vectors)
//
//   phase_first(p), phase_gates(p)   the gates of phase p
//   input_delta(g), recurrent_delta(g)   the blocks that hold the gradients of a_g and u_g
//   delta_phase(d)                   the phase whose backward writes block d
//
//   forward<p>(a, u, prev, saved, next, input)
//       a, u: pre-activations by gate (those of phase p are set; u holds W_hh h + b_hh);
//       prev: the states that enter the step; saved: written, and readable in later phases;
//       next: the states that leave it (set by the last phase); input: what phase p+1 multiplies.
//   backward<p>(saved, prev, dnext, dinput, delta, dprev)
//       phases run from the last to the first. dnext: gradients of the states that leave the step;
//       dinput: gradient of `input` of forward<p>, where there is one; delta: written by block;
//       dprev: the part of the gradients of prev that does not go through W_hh (kept between
//       phases).
#pragma once

#if defined(__CUDACC__)
#define FUSEDRNN_CELL_FN static __device__ __forceinline__
#else
#define FUSEDRNN_CELL_FN static inline __attribute__((always_inline))
#endif

namespace fusedrnn::cells {

// The numbers of a cell with one phase and one gradient block a gate.
template <int Gates>
struct OnePhase {
  static constexpr int kGates = Gates;
  static constexpr int kPhases = 1;
  static constexpr int kDeltas = Gates;
  static constexpr int phase_first(int) { return 0; }
  static constexpr int phase_gates(int) { return Gates; }
  static constexpr int input_delta(int gate) { return gate; }
  static constexpr int recurrent_delta(int gate) { return gate; }
  static constexpr int delta_phase(int) { return 0; }
};

}  // namespace fusedrnn::cells
