// What the engine hands to the kernels of one instruction set: plain structs, no functions, because
// this header is compiled with every set's flags.
//
// Letters as in fusedrnn.h, and: W lanes of a vector; U = kUnitVectors*W units of a panel; S saved
// vectors a unit; D gradient blocks; R x P the grid of threads.
//
// Buffers (row-major, last axis fastest; "panel" p holds units p*U .. p*U+U-1, zero beyond H):
//   packed_input      [panel][I][G][U]              w_ih, for a = W_ih x
//   packed_recurrent  per phase [panel][H][Gp][U]   w_hh, for u = W_hh h
//   packed_bias_*     [panel][G][U]
//   inputs[p]         [slot][B][ld_state]           what phase p multiplies; inputs[0] is the state
//   h states[1..]       [slot][B][ld_state]           the other states saved [slot][B][panel][S][U]
//   projection        per thread [panel of the thread][rows of a chunk][G][U]
//   delta             [T][B][ld_delta], gradient block d of unit u at column d*H + u
// A slot is a time boundary: see Slots in forward.h. Inference keeps two of them.
#pragma once

#include <cstdint>

#include "core/problem.h"

namespace fusedrnn::cpu {

class Barrier;

// Out of line, in the engine: kernels call no inline function that they share with other units.
void wait_at(Barrier& barrier);

constexpr int kMaxPhases = 2;

// What the engine must know of a cell as one instruction set compiled it.
struct CellShape {
  int width;         // W
  int unit_vectors;  // a panel of units has unit_vectors * W units
  int gates, states, saved, phases, deltas;
  int phase_gates[kMaxPhases];
  int recurrent_panel;  // vectors in a panel of packed_transposed (backward)
  int wide_panel;       // vectors in a panel of the plain products (dx, dw)
  int stream_panels;    // panels that a single step packs at a time
  int tile_rows;        // rows of a full register tile of the recurrent product
};

// The grid of threads: a thread has one range of sequences and one range of panels. Threads of one
// row group exchange h every step and meet at its barrier; groups are independent.
struct Grid {
  int row_groups;   // R
  int unit_groups;  // P
  Barrier* all;
  Barrier** group;  // R of them
};

struct ForwardJob {
  const ForwardCall* call;
  Grid grid;
  bool save;  // training: every slot is kept
  int64_t panels;
  int64_t ld_state;
  int64_t chunk_steps;  // steps whose input projection is computed at a time
  void* packed_input;
  void* packed_recurrent[kMaxPhases];
  void* packed_bias_ih;
  void* packed_bias_hh;
  void* inputs[kMaxPhases];
  void* states[kMaxStates];
  void* saved;
  void** projection;  // one a thread
  void** stream;  // null, or for a single step: one a thread instead of packed_*, stream_panels of
                  // them
};

struct BackwardJob {
  const BackwardCall* call;
  Grid grid;
  int64_t panels;
  int64_t ld_state;
  int64_t ld_delta;
  const void* inputs[kMaxPhases];
  const void* states[kMaxStates];
  const void* saved;
  void* delta;
  void* carry[kMaxStates];  // [B][ld_state]: gradients of the states, without the recurrent part
  void* packed_transposed[kMaxPhases];  // [panel of units][Gp*H][recurrent_panel * W]
  void* packed_input;                   // [panel of inputs][G*H][wide_panel * W], for dx
  void** scratch;                       // one a thread: blocks of the weight gradients' operands
  int64_t block_rows;                   // rows (t,b) of one such block
  int64_t block_columns;                // columns of one such block
};

struct CellKernels {
  CellShape shape;
  void (*forward)(const ForwardJob& job, int thread);
  void (*backward)(const BackwardJob& job, int thread);
};

enum Activation { kExp = 0, kSigmoid = 1, kTanh = 2 };

// One instruction set and one type.
struct Unit {
  const CellKernels* cells;  // indexed by fusedrnn_cell
  void (*activation)(int which, const void* in, void* out, int64_t n);
};

}  // namespace fusedrnn::cpu
