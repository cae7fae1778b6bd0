// What a run without steps or without sequences leaves to do; the CPU engine never sees one.
#pragma once

#include "core/network.h"
#include "core/problem.h"

namespace fusedrnn {

inline bool is_empty(const Problem& p) { return p.T == 0 || p.B == 0; }

void forward_empty(const Run& run, const ForwardCall& call);
void backward_empty(const Run& run, const BackwardCall& call);

}  // namespace fusedrnn
