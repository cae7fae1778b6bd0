// Ends the process where a thread of a kernel runs on and on without a call of device/, since
// nothing else can stop it: a loop over plain memory that no one will write.
#pragma once

#include "engine/thread.h"

namespace fusedrnn::emulator {

class Watchdog {
 public:
  // While it lives, the kernel runs; runs() is called before each stretch of one of its threads.
  explicit Watchdog(const char* kernel);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  static void runs(const Thread& thread);
};

}  // namespace fusedrnn::emulator
