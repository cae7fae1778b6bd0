// What the engine hands to the kernels of one instruction set: plain structs, no functions, because
// this header is compiled with every set's flags.
//
// Letters as in fusedrnn.h, and: W lanes of a vector; U = kUnitVectors*W units of a panel; S saved
// vectors a unit; D gradient blocks; R x C the grid of threads.
//
// Types as in format.h: Edge outside, Row and Panel for the operands of products, Real for sums and
// gates; K = Dot::kDepth numbers of k lie side by side in packed weights, and depths are filled up
// with zeros to a multiple of Kp = Format::kDepthUnit.
//
// Buffers (row-major, last axis fastest; "panel" p holds units p*U .. p*U+U-1, zero beyond the last
// unit). Of a product of g gates, u units and depth d, which are those of the cell's table:
//   weights           [panel][d/K][g][U][K]   Panel
//   bias              [panel][g][U]           Real, zeros where the cell or the call has none
//   scale, start      [panel][g][U]           of quantised weights
//   vectors           [panel][vectors][U]     Real: the vector parameters that maps read
//   operands[i]       [slot][B][ld_state]     Row: what stage i multiplies
//   states[0]         [slot][B][ld_state]     h; also the operand of the stage that multiplies h,
//                     unless the format is mixed, or what it multiplies may be dropped
//   states[1..]       [slot][B][ld_state]     Real: the other states
//   saved             [slot][B][panel][S][U]  gates
//   A quantised format has no operands of h, keeps the others as Real, and quantises what a stage
//   multiplies per thread.
//   projection        per thread [panel of the thread][rows of a chunk][G][U]  Real
//   staged            per thread [rows of a chunk][ld_staged]  Row: x where it cannot be read in
//                     place
//   delta             [step of a chunk][B][ld_delta]  Row: gradient block d of unit u at column
//                     d*delta_block + u; where there are several chunks, one step more, which
//                     follows the chunk in the order of forward
// A slot is a time boundary: see Slots in walk.h. Inference keeps two of them. B is by place: see
// sequences.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/problem.h"
#include "cpu/kernels/cell_shape.h"
#include "cpu/kernels/sequences.h"

namespace fusedrnn::cpu {

class Barrier;
class Progress;

// Out of line, in the engine: kernels call no inline function that they share with other units.
// What could throw would give them the runtime's unwinding, too.
void wait_at(Barrier& barrier) noexcept;
void wait_for(const Progress& progress, int64_t count) noexcept;
void report(Progress& progress, int thread, int64_t count) noexcept;

// What the engine must know of a cell as one instruction set and format compiled it.
struct KernelShape : CellShape {
  size_t edge_bytes, real_bytes, row_bytes, panel_bytes, saved_bytes;  // of one number
  bool mixed, staged;  // whether h exists twice; whether x is staged
  bool quantised;
  int depth;            // K
  int depth_unit;       // Kp: depths of rows and panels are filled up to multiples of it
  int width;            // W
  int recurrent_panel;  // vectors in a panel of `transposed` (backward)
  int wide_panel;       // vectors in a panel of the plain products (dx, dw)
  int stream_panels;    // panels that a single step packs at a time
  int tile_rows;     // rows of a full register tile of the first product of a step, or of x where a
                     // step has none
  int copied_units;  // of which weight gradients have the deltas in a copy
  // Rows of a matrix unit's highest block, and the fewest it is used for where a layer is small; 0:
  // there is none.
  int matrix_rows, matrix_fewest_rows;
};

// The grid of threads: a thread has one range of sequences and one range of panels. Threads of one
// row group exchange h every step and meet at its barrier; groups are independent.
struct Grid {
  int row_groups;   // R
  int unit_groups;  // C
  Barrier* all;     // these are for several threads
  Barrier** group;  // R of them
};

// What a run has to do with those that run at the same time, each on threads of its own.
struct Links {
  Progress* own;           // what others wait for, or null
  const Progress* source;  // of the run that writes its x, or in backward its dy, in steps; or null
  // Of runs that stand in a chain, at least those that others wait for, which go on after each so
  // many steps: forward projects no more at a time; backward computes dx in the walk. 0: backward's
  // `own` counts blocks of dx.
  int64_t steps;
  // Backward: of the run whose dx this one adds to, in blocks; or null. All that add to the same dx
  // go through its blocks in the order of the first, which is in reverse or not.
  const Progress* dx_before;
  bool dx_reverse;
};

// Rows of the parameter gradients' products that are summed before they are added to the total: at
// most so many, part of the result's definition, so the same for any number of threads.
constexpr int64_t kBlockRows = 256;

// A buffer of which each thread has its own part.
struct PerThread {
  void* data;
  size_t bytes;  // of one part
};

struct PackedProduct {
  void* weights;
  void* bias;
  float* scale;    // a weight's value is its whole number times this
  int32_t* start;  // what a sum begins with, for operands that have an offset
};

// All of a cell's parameters as the kernels read them.
struct PackedCell {
  PackedProduct input;
  PackedProduct stages[kMaxStages];
  void* vectors;
};

// What steps hand on. In training all of it is kept: it is the reserve, which backward reads. Of a
// lean problem backward has it of a chunk of steps, from the chunk's first time on.
struct States {
  void* operands[kMaxStages];
  void* states[kMaxStates];
  void* saved;  // null where nothing is kept or handed on
  void* norms;  // [slot][B][norms]: a RowNorm each
};

// The masks of some steps that are drawn, Real [steps][B][ld_state]; null: it is not.
struct Masks {
  int64_t steps;              // drawn at once
  void* zoneout[kMaxStates];  // 1 where a state stays
  void* candidate;            // what it is multiplied by
  void* operand;              // what h is where w_hh multiplies it, [B][ld_state] of all steps
};

// The reserve of a lean problem: what backward takes steps again from. Checkpoint k has the states
// that enter the first step, in the order of the walk, of the times from k * steps on.
struct Checkpoints {
  int64_t steps;             // 0: none are left
  void* states[kMaxStates];  // [checkpoint][B][ld_state], numbers as in States
  void* resets[kMaxStates];  // Edge: the reset states, zeros where there is none
};

// What a call wants of a matrix unit.
struct MatrixUse {
  bool multiplies;   // by it, where the format has one
  bool far_weights;  // which no core's own cache holds, so that each panel is asked for
};

struct ForwardJob {
  const ForwardCall* call;
  const KernelShape* shape;
  Grid grid;
  Links links;
  Order order;
  bool save;           // every slot is kept
  bool frozen;         // the weights have been packed before
  bool single_row;     // of one step of one sequence: nothing packs its weights before (kUnpacked)
  bool turned;         // a single step goes through its panels from the last to the first
  bool masks_operand;  // what w_hh multiplies lies apart from h
  MatrixUse matrix;
  int64_t ld_state, ld_staged;
  int64_t chunk_steps;  // whose input projection is computed at a time, where all rows live
  PackedCell packed;
  States kept;
  Masks noise;
  PerThread projection;
  PerThread inputs;  // of a chunk's rows: where their x is
  PerThread staged;
  PerThread quantised;   // Row [row of the thread][ld_state]: the operands of a stage
  PerThread row_scales;  // float: of the rows of `staged`, then of those of `quantised`
  PerThread stream;      // null, or for a single step: stream_panels panels instead of weights
  // Of cells with norms, whose threads have all units of their sequences: a stage's sums,
  // [panel][row of the thread][vectors], and what it passes to a norm.
  PerThread sums;
  void* passed;  // Real [B][ld_state]
  Checkpoints checkpoints;
};

struct BackwardJob {
  const BackwardCall* call;
  const KernelShape* shape;
  Grid grid;
  Links links;
  Order order;
  MatrixUse matrix;
  bool all_rows;           // every step walks all sequences, those that do not live too
  bool single_row;         // of one step of one sequence, whose products read weights in place
  int64_t gradient_heads;  // of the gradient of w_hh: those of the problem may be wider
  int64_t ld_state;
  int64_t delta_block;  // units, filled up to a multiple of Kp
  int64_t ld_delta;
  int64_t chunk_steps;  // steps whose deltas exist at a time, and gates of a lean problem
  States kept;          // read only; of a lean problem a chunk's, whose steps are taken again
  Masks noise;
  void* delta;
  void* carry[kMaxStates];  // [B][ld_state]: gradients of the states, without what products bring
  // Real [B][ld_state]: of the reset states, the sums of each sequence; null where not wanted.
  void* resets[kMaxStates];
  // Where norms of the gradients of the states that leave each step are wanted, else null: those
  // gradients, Real [flow_slots][B][ld_state], of so many steps in turn, and the norms of their
  // rows, [T][B]. Threads that share sequences write the next flow_steps while others still read.
  int64_t flow_steps, flow_slots;
  void* flow[kMaxStates];
  double* row_norms[kMaxStates];
  // Of cells with norms, Real: the gradients of normalised numbers of a stage, [B][normed
  // blocks][ld_state], and of what a stage passed on to one, [B][ld_state].
  void* dnormed;
  void* dpassed;
  void* vectors;  // as PackedCell's
  // Panel [panel of columns][gates*delta_block/K][recurrent_panel*W][K]: of a stage's weights, for
  // the gradient of what it multiplied. Of a single row there are none, nor of the input's.
  void* transposed[kMaxStages];
  void* input;                 // Panel [panel of inputs][G*delta_block/K][wide_panel*W][K], for dx
  PerThread scratch;           // blocks of the weight gradients' operands
  void* sums[kMaxParameters];  // Real, of a parameter's shape: where the caller's is narrower
  // Rows (t,b) of one such block: those of block_steps steps, or a step's in step_blocks parts.
  int64_t block_steps, step_blocks, block_rows;
  int64_t block_room;     // rows that it has room for
  int64_t block_columns;  // columns of one such block
  ForwardJob again;       // of a lean problem: takes the steps of a chunk again
  void* again_y;          // Edge [B][P]: y of each of them in turn
};

// One instruction set and one format.
struct Unit {
  const KernelShape* cells;  // in the order of cells/registry.h
  void (*pack)(const ForwardJob& job, int thread);
  void (*forward)(const ForwardJob& job, int thread);
  void (*backward)(const BackwardJob& job, int thread);  // null: inference alone
  // `saved`: as in States
  void (*gates)(const GatesCall& call, const KernelShape& shape, const Order& order,
                const void* saved);
  void (*drop)(const DropCall& call, int thread, int threads);
};

}  // namespace fusedrnn::cpu
