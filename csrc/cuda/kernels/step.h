// What the general path hands to the gate kernels: plain structs of addresses, and the table of
// kernels of one format.
//
// Letters as in fusedrnn.h, and: G gates, S saved vectors, D gradient blocks, Gp gates of a phase.
// Rows are those of one step, one a sequence; ld_* are their strides in elements. Types as in
// format.h.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/problem.h"

namespace fusedrnn::cuda {

constexpr int kMaxPhases = 2;
constexpr int kMaxGates = 4;

// A cell's numbers, for code that knows no cell by name.
struct CellShape {
  int gates, states, saved, phases, deltas;
  int phase_first[kMaxPhases], phase_gates[kMaxPhases];
  int input_delta[kMaxGates], recurrent_delta[kMaxGates];  // by gate
};

// One phase of one step, after its product.
struct ForwardStep {
  int64_t B, H;
  int64_t ld_u, ld_gates, ld_extra, ld_state;
  const void* b_ih;  // Edge [G*H]; may be null
  const void* b_hh;
  const void* u;  // Real [B][Gp*H]: what the phase multiplies times W_hh
  void* gates;    // Real [B][G*H]: in, the projected inputs; out, what is saved of the gates
  void* extra;    // Real [B][(S-G)*H]: saved vectors beyond the gates
  bool keep;      // whether gates and extra are written
  const void* entering[kMaxStates];  // State, then Real [B][H]
  void* leaving[kMaxStates];
  void* operand;  // Row [B][H]: h as the next product multiplies it; null where it is the state
  void* passed;   // Row [B][H]: what the next phase multiplies; null in the last one
  void* y;        // Edge
  int64_t y_stride;
  const uint8_t* flags;       // of this step; null: every step valid, none cut
  const uint8_t* next_flags;  // of the step that follows; null where there is none
};

// One phase of one step on the way back, after its product.
struct BackwardStep {
  int64_t B, H;
  int64_t ld_product, ld_gates, ld_extra, ld_state, ld_delta;
  const void*
      product;  // Real [B][H]: the gradient of what phase (p+1 or 0) multiplied; may be null
  const void* gates;
  const void* extra;
  const void* entering[kMaxStates];
  void* carry[kMaxStates];  // Real [B][H], dense: gradients of the states
  void* delta;              // Delta [B][D*H]: the blocks of this phase are written
  const void* dy;           // Edge; may be null
  int64_t dy_stride;
  const uint8_t* flags;
  const uint8_t* following_flags;  // of the step whose deltas made `product`
};

struct CellKernels {
  CellShape shape;
  void (*forward[kMaxPhases])(const ForwardStep& step, cudaStream_t stream);
  void (*backward[kMaxPhases])(const BackwardStep& step, cudaStream_t stream);
};

// The kernels of one format.
struct Unit {
  Dtype edge, row, delta, real, state;
  bool mixed;                // whether h exists twice
  const CellKernels* cells;  // in the order of fusedrnn_cell
};

extern const Unit kFloat32Unit, kFloat64Unit, kBfloat16Unit, kFloat16Unit, kMixedUnit;

// The unit of a problem; throws where CUDA has none.
const Unit& unit_of(const Problem& problem);

}  // namespace fusedrnn::cuda
