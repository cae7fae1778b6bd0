// Code with a stack of its own, which stops where it likes and goes on when it is resumed.
//
// One host thread at a time runs fibers: the engine's lock is held.
#pragma once

#include <cstddef>

namespace fusedrnn::emulator {

class Fiber {
 public:
  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber() { abandon(); }

  // Begins entry(argument) on a stack from the pool; returns when it suspends or ends. `entry` must
  // not throw.
  void start(void (*entry)(void*), void* argument);
  // Goes on behind suspend(); returns as start does.
  void resume();
  bool ended() const { return stack_ == nullptr; }
  // Gives the stack back without going on. Objects on it are not destroyed.
  void abandon();

  // Called on a fiber: back to whoever started or resumed it.
  static void suspend();

 private:
  static void enter();
  void switch_to();

  void* stack_ = nullptr;          // the lowest address; null: nothing runs
  void* stack_pointer_ = nullptr;  // where it stopped
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  bool returned_ = false;
};

}  // namespace fusedrnn::emulator
