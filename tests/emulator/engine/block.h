// The blocks of a launch that are alive together, and their warps.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "engine/thread.h"

namespace fusedrnn::emulator {

class KernelRun;

constexpr int kWarpThreads = 32;
constexpr int kNamedBarriers = 16;
constexpr int kThreadsOfLargestBlock = 1024;
constexpr unsigned char kPoison = 0xff;  // every format's NaN, and -1

struct Index3 {
  int x = 0, y = 0, z = 0;
};

struct Warp {
  Barrier barrier{"sync_warp"};
  int lanes = 0;
  bool lane_ended = false;
  // What the lanes of a shuffle offer. Two sets, because a lane may come to the next shuffle while
  // others still read from this one.
  struct Offer {
    alignas(16) unsigned char bytes[kWarpThreads][24];
  } offers[2];

  void sync(const Where& where);
};

struct Block {
  KernelRun* run = nullptr;
  Index3 index;
  int slot = 0;  // among the blocks that are alive
  std::unique_ptr<Thread[]> threads;
  int thread_count = 0;
  int ended = 0;
  std::vector<Warp> warps;
  Barrier barrier{"sync_threads"};
  std::vector<Barrier> named;
  Barrier cluster_barrier{"cluster_sync"};  // used where this is the first block of its cluster
  ByteOverlay stores;                       // weak ones that only this block sees yet
  ByteOverlay loaded;                       // what its weak loads have seen since its last acquire
  std::vector<unsigned char> shared_storage;
  unsigned char* shared = nullptr;  // aligned to 128
  size_t shared_bytes = 0;

  Block(KernelRun* owner, int threads_of_block, size_t shared_bytes_of_block);
  // Ready for the block `at` of the grid: threads unstarted, shared memory poisoned.
  void begin(Index3 at);

  void sync(const Where& where);
  Barrier& named_barrier(int id, int count);
  void thread_ended(Thread& thread);
  Warp& warp_of(const Thread& thread) {
    return warps[static_cast<size_t>(thread.index / kWarpThreads)];
  }
};

// What every lane of the running thread's warp offers, all 32 of them.
const Warp::Offer& exchange(const void* bytes, size_t size, const char* what, const Where& where);

}  // namespace fusedrnn::emulator
