// What a forward call leaves for its gradients, as one block of the caller's bytes:
//
//   header   (CPU)  of which network and sizes it is
//   flags    (CPU)  [T,B] of each direction that there is, where lengths, mask or resets were given
//   rows            between runs, [T,B,width] each
//   runs            what the engine leaves of each run
//
// Without a reserve, rows and flags lie in memory that a call allocates for itself; rows that
// nobody reads any more then give their place to others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/network.h"

namespace fusedrnn {

struct ReserveLayout {
  std::vector<size_t> rows, runs;  // where each begins; those of x and y are not there
  size_t flags[2] = {};            // forward, reverse
  size_t total = 0;

  static ReserveLayout of_device(const Network& network, DLDevice device, int64_t T, int64_t B);
  // Rows, and on the CPU flags, that live only as long as others need them.
  static ReserveLayout of_call(const Network& network, int64_t T, int64_t B, bool flags);
};

// Whether a run leaves its engine nothing to do; the CPU engine never sees one.
inline bool is_empty(const Problem& p) { return p.T == 0 || p.B == 0; }

// Of a call's arguments; what they say of steps stands in flags.
template <class Args>
bool has_masks(const Args& args) {
  return args.lengths != nullptr || args.mask != nullptr || args.resets != nullptr;
}

// On the CPU, what begins the block that a forward call leaves.
void write_header(const Network& network, const fusedrnn_forward_args& args);

size_t reserve_bytes(const Network& network, DLDevice device, int64_t T, int64_t B);

// At least as many, whatever instruction set or CUDA device the call will run on: needs neither.
size_t reserve_bytes_anywhere(const Network& network, int64_t T, int64_t B);
// Those of a CUDA device, from the tables of cells alone; of a network that runs there.
size_t cuda_reserve_bytes(const Network& network, int64_t T, int64_t B);

// Throws where a reserve is not of this network and these sizes. Of a call whose x is checked.
void check_reserve(const Network& network, const fusedrnn_forward_args& args);
void check_reserve(const Network& network, const fusedrnn_backward_args& args);
void check_reserve(const Network& network, const fusedrnn_gates_args& args);

}  // namespace fusedrnn
