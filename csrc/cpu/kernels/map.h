// What runs a cell's equations over a tile. They know float and double, and dual numbers of these:
// an instruction set compiles them once for each, in units of their own, and the units of all its
// formats call them. Plain structs, as in job.h.
#pragma once

#include "cpu/kernels/job.h"
#include "cpu/kernels/number.h"

namespace fusedrnn::cpu {

// A part of a thread's work: `rows` from `row` on, `panels` from `panel` on. It is number `index`
// of the tiles of these panels; the panels at `ahead` come next.
struct Tile {
  int64_t panel, panels, row, rows, index, ahead;
  // Of a matrix unit, whose blocks all have one height: rows before `row` that the product covers
  // once more; how many panels its rows pass over in turn, 0: it is not one's; and whether it asks
  // for those at `ahead`.
  int64_t repeated = 0;
  int64_t block_panels = 0;
  bool far_weights = false;

  FUSEDRNN_MEMBER bool by_matrix_unit() const { return block_panels > 0; }

  FUSEDRNN_MEMBER int64_t first_row() const { return row - repeated; }
  FUSEDRNN_MEMBER int64_t height() const { return repeated + rows; }
};

// Numbers of each of a thread's rows, as it has them in memory; null where there are none.
template <class Number>
struct Rows {
  Number* data = nullptr;
  int64_t stride = 0;

  FUSEDRNN_MEMBER Number* at(int64_t row, int64_t unit) const { return data + row * stride + unit; }
};

// The statistics of a norm over a row.
template <class Real>
struct RowNorm {
  Real mean, scale;
};

// What a stage of one step reads and writes. All pointers are to what belongs to the thread's first
// row and to unit `unit`, its first one, which begins a panel.
template <class Real>
struct ForwardArrays {
  const Problem* problem;
  int64_t unit;
  const uint8_t* flags;                      // of this step, by row, or null
  const uint8_t* next_flags;                 // of the next one
  const Real* projection;                    // [panel][row][G][U]
  int64_t projection_row, projection_panel;  // numbers from one to the next
  const Real* vectors;                       // the vector parameters, [panel][vectors][U]
  Rows<Real> saved;                          // [row][panel][S][U]
  Rows<const Real> prev[kMaxStates];
  Rows<Real> next[kMaxStates];
  Rows<Real> passed;                // to the next stage, or to this one, of a row that it reads
  Rows<const RowNorm<Real>> norms;  // [row][norms of the cell]
  Rows<Real> y;                     // null: what `next` has of h says it all
  Rows<Real> state_y[kMaxStates];   // where they are wanted of every step
  const Real* reset[kMaxStates];
  Rows<const Real> zoneout[kMaxStates];  // 1 where a state stays as it was; null: problem->noise
  Rows<const Real> candidate;            // what it is multiplied by; null: 1
};

// The other way, from the thread's first row and from unit 0 on. `saved` lies as in forward.
template <class Real>
struct BackwardArrays {
  const Problem* problem;
  const uint8_t* flags;
  const uint8_t* following_flags;  // of the following step
  const Real* vectors;
  Rows<const Real> saved;
  Rows<const Real> prev[kMaxStates];
  Rows<const Real> dy;
  Rows<const Real> dstate_y[kMaxStates];
  Rows<Real> carry[kMaxStates];   // gradients of the states: of what leaves, then of what enters
  Rows<Real> resets[kMaxStates];  // sums of the gradients of the reset states
  Rows<Real> delta;               // blocks of gradients, `delta_block` numbers apart
  int64_t delta_block;
  Rows<Real> dnormed;  // gradients of normalised numbers, blocks `dnormed_block` numbers apart
  int64_t dnormed_block;
  Rows<const Real> dpassed;   // of what the stage passed on to a norm
  const Matrix* dparameters;  // null data: not wanted
  Rows<const Real> zoneout[kMaxStates];
  Rows<const Real> candidate;
  // Gradients of the states that leave the step, where they are wanted; they lie as `carry` does.
  Real* flow[kMaxStates];
  bool sums_flow;  // of the only row: the partial sums of their squares lie there instead
  typename PlainOf<Real>::type clip_dh;  // limit of the elements of h's; 0: none
};

// A cell's equations of one stage over a tile, from the sums of its product, [panel][row][vectors].
template <class Real>
using ForwardMap = void (*)(const ForwardArrays<Real>& arrays, const Tile& tile, const Real* sums);
// The same from the product that reaches the stage, of panels of kRecurrentPanel vectors.
template <class Real>
using BackwardMap = void (*)(const BackwardArrays<Real>& arrays, const Tile& tile,
                             const Real* sums);

template <class Real>
struct CellMaps {
  ForwardMap<Real> forward[kMaxStages];
  BackwardMap<Real> backward[kMaxStages];
};

}  // namespace fusedrnn::cpu

namespace fusedrnn::cpu::FUSEDRNN_MAPS_ISA {

// Of every cell, in the order of cells/registry.h: what kernels/maps.cpp defines.
extern const CellMaps<float> float32_maps[];
extern const CellMaps<double> float64_maps[];
extern const CellMaps<Dual<float>> dual32_maps[];
extern const CellMaps<Dual<double>> dual64_maps[];

}  // namespace fusedrnn::cpu::FUSEDRNN_MAPS_ISA

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class Real>
FUSEDRNN_INLINE const CellMaps<Real>& maps_of(int cell) {
  if constexpr (kSame<Real, float>) {
    return FUSEDRNN_MAPS_ISA::float32_maps[cell];
  } else if constexpr (kSame<Real, double>) {
    return FUSEDRNN_MAPS_ISA::float64_maps[cell];
  } else if constexpr (kSame<Real, Dual<float>>) {
    return FUSEDRNN_MAPS_ISA::dual32_maps[cell];
  } else {
    return FUSEDRNN_MAPS_ISA::dual64_maps[cell];
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
