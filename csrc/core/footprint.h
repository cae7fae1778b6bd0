// Which memory a tensor covers: for the checks that what is written shares none with anything else.
#pragma once

#include <cstdint>
#include <vector>

#include "core/error.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

// Rows of `row_bytes` bytes; their starts differ by multiples of `pitch`.
struct Footprint {
  Name name;
  int64_t begin;      // address of the lowest byte
  int64_t end;        // behind the highest; equal to begin where there is no memory
  int64_t pitch = 0;  // greatest common divisor of the strides in bytes, 0 for a single row
  int64_t row_bytes = 0;
  bool overlaps_itself = false;
  int in_place =
      -1;  // what is written where the input of that number was read, element for element

  // Of up to three axes, the last one dense.
  Footprint(const Name& name, const DLTensor& t);
  Footprint(const Name& name, const void* memory, size_t bytes);
};

// False only where the two certainly share no byte: their ranges are apart, or their rows
// interleave (as the two halves of [T,B,2*H] do). Rarer ways to interleave count as overlap.
bool may_overlap(const Footprint& a, const Footprint& b);

// Throws where an output overlaps itself, another output or an input; where an output's number
// in_place is that of an input, the two may be the same elements.
void check_apart(const std::vector<Footprint>& outputs, const std::vector<Footprint>& inputs);

}  // namespace fusedrnn
