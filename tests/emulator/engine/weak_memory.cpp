#include "engine/weak_memory.h"

#include <cstring>

#include "engine/kernel_run.h"

namespace fusedrnn::emulator {
namespace {

bool weakly_ordered(const Thread& thread) { return thread.block->run->random() != nullptr; }

// What all threads of the block see beyond memory: nothing of another block's.
void read_as_block(const Block& block, const void* from, void* to, size_t size) {
  std::memcpy(to, from, size);
  block.loaded.apply(from, to, size);
  block.stores.apply(from, to, size);
}

}  // namespace

void check_aligned(const void* address, size_t size) {
  if (reinterpret_cast<uintptr_t>(address) % size != 0) {
    fail("an access of " + std::to_string(size) + " bytes is not aligned to its size");
  }
}

void weak_load(const void* from, void* to, size_t size) {
  check_aligned(from, size);
  Thread& thread = self();
  if (!weakly_ordered(thread)) {
    std::memcpy(to, from, size);
    return;
  }
  Block& block = *thread.block;
  if (!block.loaded.covers(from, size)) block.loaded.set(from, from, size);
  read_as_block(block, from, to, size);
  thread.stores.apply(from, to, size);
}

void weak_store(void* to, const void* from, size_t size) {
  check_aligned(to, size);
  Thread& thread = self();
  if (weakly_ordered(thread)) {
    thread.stores.set(to, from, size);
  } else {
    std::memcpy(to, from, size);
    thread.block->run->progress();
  }
}

void relaxed_load(const void* from, void* to, size_t size, const Where& where) {
  check_aligned(from, size);
  Thread& thread = self();
  thread.block->run->poll("a load", where);
  std::memcpy(to, from, size);
  thread.block->stores.apply(from, to, size);  // a location has one order of stores
  thread.stores.apply(from, to, size);
}

void relaxed_store(void* to, const void* from, size_t size) {
  check_aligned(to, size);
  Thread& thread = self();
  thread.stores.forget(to, size);
  thread.block->stores.forget(to, size);
  thread.block->loaded.forget(to, size);
  std::memcpy(to, from, size);
  thread.block->run->progress();
  thread.block->run->maybe_let_others_run();
}

uint32_t relaxed_add(uint32_t* to, uint32_t value, const Where& where) {
  uint32_t old = 0;
  relaxed_load(to, &old, sizeof old, where);
  const uint32_t sum = old + value;
  relaxed_store(to, &sum, sizeof sum);
  return old;
}

void show_to_block(Thread& thread) {
  if (!thread.stores.empty()) thread.stores.move_to(thread.block->stores);
}

void publish(Thread& thread) {
  thread.block->stores.publish();
  thread.stores.publish();
  thread.block->run->progress();
}

void renew(Thread& thread) { thread.block->loaded.clear(); }

}  // namespace fusedrnn::emulator
