// Forward and backward passes on a CUDA device, by way of the CUDA library.
#pragma once

#include "core/tape.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

// The arguments have been checked, as `call` says. `kept` may be null: inference.
void forward_on_cuda(const fusedrnn_forward_args& args, const ForwardCall& call,
                     fusedrnn_tape* kept);
void backward_on_cuda(const fusedrnn_backward_args& args, const fusedrnn_tape& tape,
                      const BackwardCall& call);

}  // namespace fusedrnn
