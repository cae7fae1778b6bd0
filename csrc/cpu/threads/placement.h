// Where a woken thread runs.
#pragma once

#if defined(__linux__)
#include <sched.h>
#include <sys/types.h>
#endif

namespace fusedrnn::cpu {

// Keeps a sleeping thread off the CPU of the thread that wakes it. The system likes to put the two
// side by side, where they share one CPU until its balancer finds out: milliseconds in which the
// team is no faster than one thread.
class Placement {
 public:
  // The thread itself, at its start.
  void adopt_this_thread();
  // The waker, while the thread sleeps.
  void keep_off_this_cpu();
  // The thread itself, awake: gives back the CPUs it may use. Nothing moves it then. Where the
  // system refuses, the next call tries again.
  void restore();

 private:
#if defined(__linux__)
  pid_t thread_ = 0;
  bool restricted_ = false;
  cpu_set_t allowed_;
#endif
};

}  // namespace fusedrnn::cpu
