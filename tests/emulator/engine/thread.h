// A thread of a kernel: a fiber, and what it waits for.
#pragma once

#include <cstdint>

#include "engine/barrier.h"
#include "engine/copies.h"
#include "engine/fiber.h"
#include "engine/store_buffer.h"

namespace fusedrnn::emulator {

struct Block;

struct Thread {
  enum class State : uint8_t { ready, waiting, ended };

  Block* block = nullptr;
  int index = 0;
  State state = State::ready;
  bool begun = false;
  const Barrier* barrier = nullptr;  // while it waits
  Where where;                       // of the wait
  ByteOverlay stores;                // weak ones that no other thread sees yet
  ThreadCopies copies;
  bool arrived_in_cluster = false;  // and has not waited since
  uint64_t cluster_phase = 0;
  Fiber fiber;
};

// The thread whose code runs; null on the host.
inline Thread* current_thread = nullptr;

// Ends the launch with an error that names its kernel, block and thread.
[[noreturn]] void fail(const std::string& what);

// The thread that calls a function of device/, which the host must not.
[[noreturn]] void fail_on_host();
inline Thread& self() {
  if (current_thread == nullptr) fail_on_host();
  return *current_thread;
}

}  // namespace fusedrnn::emulator
