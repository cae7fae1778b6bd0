// Every check of an argument's shape, type, device, rank and value, for all who call the library,
// driven by the cells' tables: what passes here is safe for an engine to run. Failures throw Error
// with a message that names the argument, what was expected and what came; nothing has been written
// then.
#pragma once

#include <string>

#include "core/network.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

enum class Layout {
  any,    // strides and alignment are not looked at, and no element is read: the caller copies
  dense,  // dense last axis, aligned to the element
};

template <class Args>
void check_size(const char* name, const Args& args) {
  if (args.size == sizeof args) return;
  refuse_value(name, "size = " + std::to_string(sizeof args) + " (its sizeof)", args.size);
}

// The run of a call whose sizes follow from its tensors: x decides the type, the parameters the
// sizes. `dual`: whether x is to be of dual numbers.
fusedrnn_run infer_run(const CellTable& cell, const DLTensor* x, const DLTensor* const* parameters,
                       bool dual, int64_t heads);

void check_parameters_to_freeze(const Network& network, const DLTensor* const* parameters,
                                Layout layout);

// All of a call; with Layout::any what it reads, and no outputs and no reserve, which the caller
// makes once it knows the sizes. `frozen`: it has no parameters of its own. Values of lengths are
// read where they lie in the CPU's memory; a CUDA library limits the others.
void check_forward(const Network& network, const fusedrnn_forward_args& args, Layout layout,
                   bool frozen = false);
void check_backward(const Network& network, const fusedrnn_backward_args& args, Layout layout);

void check_gates(const Network& network, const fusedrnn_gates_args& args);

// Whether the device can compute as the network says.
void check_compute(const Network& network, DLDevice device, bool frozen);

}  // namespace fusedrnn
