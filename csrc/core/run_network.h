// The passes of a network: its runs one after the other, each by the engine of x's device, and the
// rows between them. Arguments have been checked (core/validate.h).
#pragma once

#include "core/network.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

// `frozen`: packed weights of this network in the place of parameters, or null.
void run_forward(const Network& network, const fusedrnn_forward_args& args,
                 const fusedrnn_frozen* frozen);
void run_backward(const Network& network, const fusedrnn_backward_args& args);
// The gates of a run.
void read_gates(const Network& network, const fusedrnn_gates_args& args);

}  // namespace fusedrnn
