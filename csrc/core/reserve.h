// What a forward call leaves for its gradients, as one block of the caller's bytes:
//
//   header   (CPU)  of which network and sizes it is
//   flags    (CPU)  [T,B] of each direction that there is, where lengths or resets were given
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

struct ReserveHeader {
  uint64_t magic;
  uint64_t digest;  // of the network, the sizes and the instruction set
  uint64_t bytes;
  uint64_t has_flags;
};

struct ReserveLayout {
  std::vector<size_t> rows, runs;  // where each begins; those of x and y are not there
  size_t flags[2] = {};            // forward, reverse
  size_t total = 0;

  // For the CPU.
  static ReserveLayout of_cpu(const Network& network, int64_t T, int64_t B);
  // `device`: of CUDA, whose library says what it leaves.
  static ReserveLayout of_cuda(const Network& network, int64_t T, int64_t B);
  // Rows, and on the CPU flags, that live only as long as others need them.
  static ReserveLayout of_call(const Network& network, int64_t T, int64_t B, bool flags);

 private:
  size_t take(size_t bytes, size_t alignment);
};

ReserveHeader header_of(const Network& network, int64_t T, int64_t B, size_t bytes, bool has_flags);

}  // namespace fusedrnn
