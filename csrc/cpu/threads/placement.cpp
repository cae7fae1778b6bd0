#include "cpu/threads/placement.h"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#endif

namespace fusedrnn::cpu {

#if defined(__linux__)

// Calls that fail (a sandbox, more CPUs than a cpu_set_t holds) leave things as they were, but for
// the one that gives CPUs back: that comes again with the thread's next turn, and until it succeeds
// nothing is taken from the thread any more.

void Placement::adopt_this_thread() { thread_ = static_cast<pid_t>(syscall(SYS_gettid)); }

void Placement::keep_off_this_cpu() {
  if (restricted_) return;  // what it may use now is not what it was given
  const int cpu = sched_getcpu();
  if (cpu < 0 || cpu >= CPU_SETSIZE) return;
  if (sched_getaffinity(thread_, sizeof allowed_, &allowed_) != 0) return;
  cpu_set_t others = allowed_;
  CPU_CLR(static_cast<unsigned>(cpu), &others);
  if (CPU_COUNT(&others) == 0 || !CPU_ISSET(static_cast<unsigned>(cpu), &allowed_)) return;
  restricted_ = sched_setaffinity(thread_, sizeof others, &others) == 0;
}

void Placement::restore() {
  if (!restricted_) return;
  restricted_ = sched_setaffinity(thread_, sizeof allowed_, &allowed_) != 0;
  if (!restricted_ || errno != EINVAL) return;
  // None of these is left to the process (its cpuset has changed). The system then gives a thread
  // all that are left, which is what it makes of a set of all.
  cpu_set_t all;
  std::memset(&all, 0xff, sizeof all);
  restricted_ = sched_setaffinity(thread_, sizeof all, &all) != 0;
}

#else

void Placement::adopt_this_thread() {}
void Placement::keep_off_this_cpu() {}
void Placement::restore() {}

#endif

}  // namespace fusedrnn::cpu
