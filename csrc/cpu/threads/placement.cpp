#include "cpu/threads/placement.h"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fusedrnn::cpu {

#if defined(__linux__)

// Every call that fails (a sandbox, more CPUs than a cpu_set_t holds) leaves things as they were.

void Placement::adopt_this_thread() { thread_ = static_cast<pid_t>(syscall(SYS_gettid)); }

void Placement::keep_off_this_cpu() {
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
  restricted_ = false;
  sched_setaffinity(thread_, sizeof allowed_, &allowed_);
}

#else

void Placement::adopt_this_thread() {}
void Placement::keep_off_this_cpu() {}
void Placement::restore() {}

#endif

}  // namespace fusedrnn::cpu
