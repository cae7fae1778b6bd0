#include "engine/block.h"

#include <algorithm>
#include <cstring>

#include "engine/kernel_run.h"
#include "engine/weak_memory.h"

namespace fusedrnn::emulator {
namespace {

constexpr size_t kSharedAlignment = 128;

unsigned char* aligned(unsigned char* p) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  return p + (kSharedAlignment - address % kSharedAlignment) % kSharedAlignment;
}

// Arrivals from different lines are threads on different branches.
void check_same_place(const Barrier& barrier, const Where& where) {
  if (barrier.arrived() == 0 || barrier.first_arrival().line() == where.line()) return;
  fail(barrier.name() + " at " + describe(where) + ": others of its threads arrived at " +
       describe(barrier.first_arrival()));
}

}  // namespace

void Warp::sync(const Where& where) {
  if (lane_ended) fail("sync_warp or a shuffle at " + describe(where) + ": lanes have ended");
  show_to_block(self());
  barrier.arrive_and_wait(lanes, where);
}

const Warp::Offer& exchange(const void* bytes, size_t size, const char* what, const Where& where) {
  Thread& thread = self();
  Warp& warp = thread.block->warp_of(thread);
  if (warp.lanes != kWarpThreads) {
    fail(std::string(what) + " at " + describe(where) + ": the warp has " +
         std::to_string(warp.lanes) + " of 32 lanes");
  }
  check_same_place(warp.barrier, where);
  Warp::Offer& offer = warp.offers[warp.barrier.phase() % 2];
  std::memcpy(offer.bytes[thread.index % kWarpThreads], bytes, size);
  warp.sync(where);
  return offer;
}

Block::Block(KernelRun* owner, int threads_of_block, size_t shared_bytes_of_block)
    : run(owner),
      threads(new Thread[static_cast<size_t>(threads_of_block)]),
      thread_count(threads_of_block),
      warps(static_cast<size_t>((threads_of_block + kWarpThreads - 1) / kWarpThreads)),
      shared_storage(shared_bytes_of_block + kSharedAlignment),
      shared(aligned(shared_storage.data())),
      shared_bytes(shared_bytes_of_block) {
  for (int i = 0; i < kNamedBarriers; ++i) {
    named.emplace_back("the named barrier", i);
  }
}

void Block::begin(Index3 at) {
  index = at;
  ended = 0;
  for (int i = 0; i < thread_count; ++i) {
    Thread& thread = threads[static_cast<size_t>(i)];
    thread.block = this;
    thread.index = i;
    thread.state = Thread::State::ready;
    thread.begun = false;
    thread.barrier = nullptr;
    thread.copies.clear();
    thread.arrived_in_cluster = false;
  }
  for (size_t i = 0; i < warps.size(); ++i) {
    warps[i].lanes = std::min(kWarpThreads, thread_count - static_cast<int>(i) * kWarpThreads);
    warps[i].lane_ended = false;
  }
  for (Barrier& one : named) one.reset();  // arrivals that nobody waited for end with the block
  std::memset(shared, kPoison, shared_bytes);
}

void Block::sync(const Where& where) {
  if (ended != 0) {
    fail("sync_threads at " + describe(where) + ": " + std::to_string(ended) + " of " +
         std::to_string(thread_count) + " threads of the block have ended");
  }
  check_same_place(barrier, where);
  show_to_block(self());
  barrier.arrive_and_wait(thread_count, where);
}

Barrier& Block::named_barrier(int id, int count) {
  if (id < 1 || id >= kNamedBarriers) {
    fail("named barrier: expected 1 to 15, got " + std::to_string(id));
  }
  if (count <= 0 || count % kWarpThreads != 0) {
    fail("named barrier " + std::to_string(id) + ": expected a multiple of 32 threads, got " +
         std::to_string(count));
  }
  show_to_block(self());
  return named[static_cast<size_t>(id)];
}

void Block::thread_ended(Thread& thread) {
  if (thread.copies.under_way()) fail("ended with asynchronous copies that it has not waited for");
  show_to_block(thread);
  ++ended;
  Warp& warp = warp_of(thread);
  warp.lane_ended = true;
  for (const Barrier* waited_for : {&barrier, &warp.barrier}) {
    if (waited_for->arrived() != 0) {
      fail("ended where others wait for it at " + waited_for->describe() + ", " +
           describe(waited_for->first_arrival()));
    }
  }
}

}  // namespace fusedrnn::emulator
