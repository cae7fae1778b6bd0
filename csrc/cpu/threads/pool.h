// The process's worker threads: how many to use, a team of them for one call, a barrier inside it.
//
// Everything here is out of line on purpose: this header is read by units compiled for one
// instruction set, and an inline function shared with them could be linked in its wide form for
// every machine.
#pragma once

#include <atomic>
#include <cstdint>

namespace fusedrnn::cpu {

constexpr int kMaxThreads = 1024;
constexpr int kFalseSharingBytes = 128;  // two lines: x86 prefetches them in pairs

// The CPUs this process may use: its affinity mask, limited by the cgroup's quota; at least 1.
int available_cpus();

// The number of threads a call uses at most, the calling one included. The first of these that is
// set: set_num_threads, FUSEDRNN_NUM_THREADS, OMP_NUM_THREADS, available_cpus(). The environment
// and the CPUs are read once, at the first call. Throws while FUSEDRNN_NUM_THREADS holds no usable
// number: it is not replaced by another one in silence.
int get_num_threads();
void set_num_threads(int n);

// Makes n threads meet: what each wrote before wait() is seen by all after it. Reusable at once,
// any number of times. A thread that waits long gives its CPU away, so more threads than CPUs make
// progress; where the process has fewer CPUs than this barrier threads, they sleep.
class Barrier {
 public:
  explicit Barrier(int n);
  Barrier(const Barrier&) = delete;
  Barrier& operator=(const Barrier&) = delete;

  void wait();

 private:
  // Round number in the high half, threads that have arrived in the low half. One word instead of
  // two costs one transfer of a cache line less in every round.
  alignas(kFalseSharingBytes) std::atomic<uint64_t> state_;
  int n_;
  bool crowded_;  // there are fewer CPUs than threads
};

// The CPUs that the process could use when the pool last grew; at least 1.
int pool_cpus();

class Pool;

// The calling thread and as many of the pool's workers as it gets, held until destruction.
//
// The pool serves one team at a time. Whoever comes while it is taken (another caller, or a body
// that itself asks for a team) gets a team of one at once: that uses no more CPUs and cannot
// deadlock. A team belongs to the thread that made it.
class Team {
 public:
  // wanted: the most threads to use, the caller included; below 2 means the caller alone.
  explicit Team(int wanted);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  // May be less than was wanted, also because the system refused a thread.
  int size() const;

  // Calls body(context, thread) once for each thread from 0 (the caller) to size() - 1, all at the
  // same time, and returns when every call has. No exception may leave `body`: std::terminate is
  // called.
  void run(void (*body)(void* context, int thread), void* context) noexcept;

 private:
  Pool* pool_;  // null where the caller is alone
  int size_;
};

}  // namespace fusedrnn::cpu
