// Every check of an argument's shape, type, device, rank and value, for all who call the library:
// what passes here is safe for an engine to run. Failures throw Error with a message that names the
// argument, what was expected and what came; nothing has been written then.
#pragma once

#include "core/problem.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

enum class Layout {
  any,    // strides and alignment are not looked at, and no element is read: the caller copies
  dense,  // dense last axis, aligned to the element
};

// Whether all that an engine may want for T steps of B sequences is of a size that can be named; I
// and H are those of weights that were accepted.
bool steps_fit(const Problem& problem);

// The inputs alone; the outputs may be null.
Problem check_forward_inputs(const fusedrnn_forward_args& args, Layout layout);
void check_backward_inputs(const fusedrnn_backward_args& args, const fusedrnn_tape& tape,
                           Layout layout);

// The same of a call with frozen weights, which has no weights of its own.
Problem check_forward_inputs(const fusedrnn_forward_args& args, const Problem& frozen,
                             Layout layout);

// With Layout::any the call has a problem and no weights.
FreezeCall check_freeze(const fusedrnn_freeze_args& args, Layout layout);

// Inputs and outputs. The caller sets `flags`; in a BackwardCall x, w_ih and w_hh are those of the
// call that left the tape. With `frozen` not null, the weights are those of that problem.
// Values of lengths are read where they lie in the CPU's memory; a CUDA library limits the others.
ForwardCall check_forward(const fusedrnn_forward_args& args, const Problem* frozen = nullptr);
BackwardCall check_backward(const fusedrnn_backward_args& args, const fusedrnn_tape& tape);

}  // namespace fusedrnn
