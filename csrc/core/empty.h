// What a call without steps or without sequences leaves to do; engines never see one.
#pragma once

#include "core/problem.h"

namespace fusedrnn {

inline bool is_empty(const Problem& p) { return p.T == 0 || p.B == 0; }

void forward_empty(const ForwardCall& call);
void backward_empty(const BackwardCall& call);

}  // namespace fusedrnn
