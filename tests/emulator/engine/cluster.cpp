#include "engine/cluster.h"

namespace fusedrnn::emulator {
namespace {

int size_of_cluster(const Block& block) { return block.run->kernel().shape.cluster; }

// The block of rank 0 keeps the barrier.
Barrier& barrier_of(const Block& block) {
  const int first = block.slot - rank_in_cluster(block);
  return block.run->blocks()[static_cast<size_t>(first)]->cluster_barrier;
}

}  // namespace

int rank_in_cluster(const Block& block) { return block.slot % size_of_cluster(block); }

Block& block_of_cluster(int rank) {
  const Block& own = *self().block;
  if (rank < 0 || rank >= size_of_cluster(own)) {
    fail("map_shared: rank " + std::to_string(rank) + " of a cluster of " +
         std::to_string(size_of_cluster(own)));
  }
  const int slot = own.slot - rank_in_cluster(own) + rank;
  return *own.run->blocks()[static_cast<size_t>(slot)];
}

void arrive_in_cluster(const Where& where) {
  Thread& thread = self();
  if (thread.arrived_in_cluster) {
    fail("arrives at the cluster's barrier at " + describe(where) +
         " a second time without a wait");
  }
  thread.arrived_in_cluster = true;
  const int expected = size_of_cluster(*thread.block) * thread.block->thread_count;
  thread.cluster_phase = barrier_of(*thread.block).arrive(expected, where);
}

void wait_in_cluster(const Where& where) {
  Thread& thread = self();
  if (!thread.arrived_in_cluster) {
    fail("cluster_wait at " + describe(where) + " without an arrival");
  }
  thread.arrived_in_cluster = false;
  barrier_of(*thread.block).wait(thread.cluster_phase, where);
  renew(thread);
}

}  // namespace fusedrnn::emulator
