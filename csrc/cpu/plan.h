// How a problem is spread over threads and cut into chunks: by what it would cost.
#pragma once

#include <cstdint>

#include "core/problem.h"
#include "cpu/kernels/job.h"

namespace fusedrnn::cpu {

struct Plan {
  int row_groups = 1;   // the batch is cut into this many parts, which never meet
  int unit_groups = 1;  // the hidden units into this many, which meet every step
  int64_t chunk_steps = 1;

  int threads() const { return row_groups * unit_groups; }
};

// The cheapest plan of at most `threads` threads.
Plan plan_forward(const CellShape& shape, const Problem& problem, int threads);
Plan plan_backward(const CellShape& shape, const Problem& problem, int threads);

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t panel_units(const CellShape& shape) {
  return int64_t{shape.unit_vectors} * shape.width;
}
inline int64_t panels_of(const CellShape& shape, int64_t units) {
  return divide_up(units, panel_units(shape));
}

}  // namespace fusedrnn::cpu
