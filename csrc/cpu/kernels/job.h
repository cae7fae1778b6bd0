// What the engine hands to the kernels of one instruction set: plain structs, no functions, because
// this header is compiled with every set's flags.
//
// Letters as in fusedrnn.h, and: W lanes of a vector; U = kUnitVectors*W units of a panel; S saved
// vectors a unit; D gradient blocks; R x P the grid of threads.
//
// Types as in format.h: Edge outside, Row and Panel for the operands of products, Real for sums and
// gates; K = Dot::kDepth numbers of k lie side by side in packed weights, and depths are filled up
// with zeros to a multiple of Kp = Format::kDepthUnit.
//
// Buffers (row-major, last axis fastest; "panel" p holds units p*U .. p*U+U-1, zero beyond H):
//   packed_input      [panel][I/K][G][U][K]             Panel: w_ih, for a = W_ih x
//   packed_recurrent  per phase [panel][H/K][Gp][U][K]  Panel: w_hh, for u = W_hh h
//   packed_bias_*     [panel][G][U]                     Real
//   inputs[p]         [slot][B][ld_state]               Row: what phase p multiplies
//   states[0]         [slot][B][ld_state]               h; inputs[0], unless the format is mixed
//   states[1..]       [slot][B][ld_state]               Real: the other states
//   saved             [slot][B][panel][S][U]            gates
//   A quantised format keeps inputs[1..] as Real, and quantises what a phase multiplies per thread.
//   projection        per thread [panel of the thread][rows of a chunk][G][U]  Real
//   staged            per thread [rows of a chunk][ld_staged]  Row: x where it cannot be read in
//                     place
//   delta             [T][B][ld_delta]                  Row: gradient block d of unit u at column
//                     d*Hp + u, with Hp = H rounded up to Kp
// A slot is a time boundary: see Slots in forward.h. Inference keeps two of them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/problem.h"

namespace fusedrnn::cpu {

class Barrier;

// Out of line, in the engine: kernels call no inline function that they share with other units.
// What could throw would give them the runtime's unwinding, too.
void wait_at(Barrier& barrier) noexcept;

constexpr int kMaxPhases = 2;

// What the engine must know of a cell as one instruction set compiled it.
struct CellShape {
  int edge_bytes, real_bytes, row_bytes, panel_bytes, saved_bytes;  // of one number
  bool mixed, staged;  // whether h exists twice; whether x is staged
  bool quantised;
  int depth;         // K
  int depth_unit;    // Kp: depths of rows and panels are filled up to multiples of it
  int width;         // W
  int unit_vectors;  // a panel of units has unit_vectors * W units
  int gates, states, saved, phases, deltas;
  int phase_gates[kMaxPhases];
  int recurrent_panel;  // vectors in a panel of packed_transposed (backward)
  int wide_panel;       // vectors in a panel of the plain products (dx, dw)
  int stream_panels;    // panels that a single step packs at a time
  int tile_rows;        // rows of a full register tile of the recurrent product
  int gradient_rows;    // room for the units of a tile of the weight gradients
  // Rows of a matrix unit's highest block, and the fewest it is used for; 0: there is none.
  int matrix_rows, matrix_fewest_rows;
};

// The grid of threads: a thread has one range of sequences and one range of panels. Threads of one
// row group exchange h every step and meet at its barrier; groups are independent.
struct Grid {
  int row_groups;   // R
  int unit_groups;  // P
  Barrier* all;
  Barrier** group;  // R of them
};

// A buffer of which each thread has its own part.
struct PerThread {
  void* data;
  size_t bytes;  // of one part
};

// Of quantised weights, [panel][G][U] as the biases.
struct Quantisation {
  float* scale;
  int32_t* start;  // what a sum begins with, for operands that have an offset
};

struct ForwardJob {
  const ForwardCall* call;
  Grid grid;
  bool save;    // training: every slot is kept
  bool packed;  // the weights have been packed before
  bool turned;  // a single step goes through its panels from the last to the first
  int64_t panels;
  int64_t ld_state, ld_staged;
  int64_t chunk_steps;  // steps whose input projection is computed at a time
  void* packed_input;
  void* packed_recurrent[kMaxPhases];
  void* packed_bias_ih;
  void* packed_bias_hh;
  Quantisation quantised_input, quantised_recurrent;  // of packed_*, where they are quantised
  void* inputs[kMaxPhases];
  void* states[kMaxStates];
  void* saved;
  PerThread projection, staged;
  PerThread quantised;   // Row [sequences of the thread][ld_state]: the operands of a phase
  PerThread row_scales;  // float: of the rows of `staged`, then of those of `quantised`
  PerThread stream;      // null, or for a single step: stream_panels panels instead of packed_*
};

struct BackwardJob {
  const BackwardCall* call;
  Grid grid;
  int64_t panels;
  int64_t ld_state;
  int64_t ld_delta, delta_block;  // Hp
  const void* inputs[kMaxPhases];
  const void* states[kMaxStates];
  const void* saved;
  void* delta;
  void* carry[kMaxStates];  // [B][ld_state]: gradients of the states, without the recurrent part
  void* packed_transposed[kMaxPhases];  // Panel [panel of units][Gp*Hp/K][recurrent_panel*W][K]
  void* packed_input;                   // Panel [panel of inputs][G*Hp/K][wide_panel*W][K], for dx
  PerThread scratch;                    // blocks of the weight gradients' operands
  void* dw_ih;            // [G*H][I] Real sums, where the caller's arrays are narrower; else null
  void* dw_hh;            // [G*H][H]
  int64_t block_rows;     // rows (t,b) of one such block
  int64_t block_columns;  // columns of one such block
};

struct CellKernels {
  CellShape shape;
  void (*pack)(const ForwardJob& job, int thread);
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
