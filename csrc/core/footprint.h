// Which memory a tensor covers: for the checks that outputs do not overlap.
#pragma once

#include <cstdint>
#include <span>

#include "core/problem.h"

namespace fusedrnn {

// Rows of `row_bytes` bytes; their starts differ by multiples of `pitch`.
struct Footprint {
  const char* name = nullptr;
  int64_t begin = 0;  // address of the lowest byte
  int64_t end = 0;    // behind the highest; equal to begin where there is no memory
  int64_t pitch = 0;  // greatest common divisor of the strides in bytes, 0 for a single row
  int64_t row_bytes = 0;
  bool overlaps_itself = false;
};

Footprint footprint(const char* name, const Sequence& s, int64_t T, int64_t B, int64_t n,
                    int64_t item_bytes);
Footprint footprint(const char* name, const Matrix& m, int64_t rows, int64_t n, int64_t item_bytes);

// False only where the two certainly share no byte: their ranges are apart, or their rows
// interleave (as the two halves of [T,B,2*H] do). Rarer ways to interleave count as overlap.
bool may_overlap(const Footprint& a, const Footprint& b);

// Throw where the two, or any two of the outputs, may overlap, or an output overlaps itself.
void check_apart(const Footprint& a, const Footprint& b);
void check_outputs_apart(std::span<const Footprint> outputs);

}  // namespace fusedrnn
