#include "cpu/threads/pool.h"

#include <chrono>
#include <exception>
#include <memory>
#include <new>
#include <thread>

#include "cpu/threads/placement.h"
#include "cpu/threads/spin.h"

#if defined(__unix__) || defined(__APPLE__)
#define FUSEDRNN_POSIX_THREADS 1
#include <pthread.h>
#include <signal.h>
#endif

namespace fusedrnn::cpu {

namespace {

std::atomic<int> cpus_when_grown{kMaxThreads};

using Body = void (*)(void* context, int thread);

// One word passes the worker's turn to and fro. The caller only ever exchanges it for kWork, and
// learns by the same operation whether the worker must be woken; nothing can slip in between.
enum State : int {
  kIdle,    // done with its last job, looking for the next
  kWork,    // a job is in the mailbox or running
  kParked,  // asleep until `state` changes
};

constexpr auto kSpinBeforeParking = std::chrono::microseconds(50);

// Each thread starts this many others, so that waking many sleepers takes a logarithmic time; up to
// 5 threads the caller starts all itself.
constexpr int kFanOut = 4;

// A worker's mailbox, alone on its cache lines: the caller's only message to it.
struct alignas(kFalseSharingBytes) Worker {
  std::atomic<int> state{kIdle};
  Body body = nullptr;
  void* context = nullptr;
  int team_size = 0;
  int thread = 0;  // its number in every team, from 1
  Placement placement;
};

// New threads must not run the signal handlers of the program: those belong to its own threads (in
// Python, to the main one). Faults of the thread itself stay open, or crash reports would be lost.
class SignalsBlocked {
 public:
#ifdef FUSEDRNN_POSIX_THREADS
  SignalsBlocked() {
    sigset_t set;
    sigfillset(&set);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT}) {
      sigdelset(&set, fault);
    }
    pthread_sigmask(SIG_SETMASK, &set, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
#else
  SignalsBlocked() {}
#endif

 public:
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
};

}  // namespace

class Pool {
 public:
  bool try_acquire() {
    return !busy_.load(std::memory_order_relaxed) &&
           !busy_.exchange(true, std::memory_order_acquire);
  }
  void release() { busy_.store(false, std::memory_order_release); }

  // The functions below are for the team that holds the pool.

  // Starts threads until there are `wanted`; returns how many there are.
  int grow(int wanted);
  void start(int thread, int team_size, Body body, void* context);
  void join(int team_size);

 private:
  void work(Worker& worker) noexcept;
  void start_others(int starter, int team_size, Body body, void* context);

  std::atomic<bool> busy_{false};
  int workers_count_ = 0;
  std::unique_ptr<Worker> workers_[kMaxThreads];  // by thread number; [0] is the caller's and empty

  friend class Team;
};

int Pool::grow(int wanted) {
  if (workers_count_ >= wanted) {
    return workers_count_;
  }
  const SignalsBlocked signals_blocked;
  try {
    cpus_when_grown.store(available_cpus(), std::memory_order_relaxed);
    while (workers_count_ < wanted) {
      const int thread = workers_count_ + 1;
      auto worker = std::make_unique<Worker>();
      worker->thread = thread;
      // Detached, and the pool is never destroyed: when the process ends, other threads may still
      // be in the middle of calls, so there is no moment to join or to free.
      std::thread([this, raw = worker.get()] { work(*raw); }).detach();
      workers_[thread] = std::move(worker);
      workers_count_ = thread;
    }
  } catch (const std::exception&) {
    // No thread or no memory: the team is smaller, the results are the same.
  }
  return workers_count_;
}

void Pool::start(int thread, int team_size, Body body, void* context) {
  Worker& worker = *workers_[thread];
  worker.body = body;
  worker.context = context;
  worker.team_size = team_size;
  // Who finds it asleep is the only one to wake it: it sleeps until the exchange below.
  if (worker.state.load(std::memory_order_acquire) == kParked) worker.placement.keep_off_this_cpu();
  if (worker.state.exchange(kWork, std::memory_order_acq_rel) == kParked) {
    worker.state.notify_one();
  }
}

void Pool::start_others(int starter, int team_size, Body body, void* context) {
  const int first = starter * kFanOut + 1;
  for (int thread = first; thread < first + kFanOut && thread < team_size; ++thread) {
    start(thread, team_size, body, context);
  }
}

void Pool::join(int team_size) {
  // In rising order: a thread's starter has a lower number, so once the starter is found done, the
  // thread's own state can no longer be the kIdle from before it was started.
  for (int thread = 1; thread < team_size; ++thread) {
    Backoff backoff;
    while (workers_[thread]->state.load(std::memory_order_acquire) == kWork) {
      backoff.pause();
    }
  }
}

void Pool::work(Worker& worker) noexcept {
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "fusedrnn");
#endif
  worker.placement.adopt_this_thread();
  std::atomic<int>& state = worker.state;
  for (;;) {
    const auto park_at = std::chrono::steady_clock::now() + kSpinBeforeParking;
    Backoff backoff;
    while (state.load(std::memory_order_acquire) != kWork) {
      if (!backoff.pause() || std::chrono::steady_clock::now() < park_at) {
        continue;
      }
      int expected = kIdle;
      if (state.compare_exchange_strong(expected, kParked, std::memory_order_acq_rel)) {
        state.wait(kParked, std::memory_order_acquire);
      }
    }
    worker.placement.restore();
    start_others(worker.thread, worker.team_size, worker.body, worker.context);
    worker.body(worker.context, worker.thread);
    state.store(kIdle, std::memory_order_release);
  }
}

namespace {

// Never destroyed: see grow().
std::atomic<Pool*> process_pool{nullptr};

#ifdef FUSEDRNN_POSIX_THREADS
// The child of a fork has none of the workers, and the pool's state is that of a moment in another
// thread's call. It is forgotten, not freed: a team of the forking thread may still refer to it,
// and allocators are best left alone here. The child's first team makes a new pool.
void forget_pool() { process_pool.store(nullptr, std::memory_order_relaxed); }

// While the library is loaded, not at first use: a fork can come in the middle of anything done
// lazily.
const bool fork_is_safe = pthread_atfork(nullptr, nullptr, forget_pool) == 0;
#else
constexpr bool fork_is_safe = true;
#endif

// Without locks, since a fork would copy them locked. Null: work without the pool.
Pool* get_pool() {
  if (!fork_is_safe) {
    return nullptr;
  }
  Pool* pool = process_pool.load(std::memory_order_acquire);
  if (pool == nullptr) {
    std::unique_ptr<Pool> fresh(new (std::nothrow) Pool);
    if (process_pool.compare_exchange_strong(pool, fresh.get(), std::memory_order_acq_rel)) {
      pool = fresh.release();
    }
  }
  return pool;
}

}  // namespace

int pool_cpus() { return cpus_when_grown.load(std::memory_order_relaxed); }

Team::Team(int wanted) : pool_(nullptr), size_(1) {
  wanted = wanted < kMaxThreads ? wanted : kMaxThreads;
  if (wanted < 2) {
    return;
  }
  Pool* const pool = get_pool();
  if (pool == nullptr || !pool->try_acquire()) {
    return;
  }
  const int workers = pool->grow(wanted - 1);
  if (workers == 0) {
    pool->release();
    return;
  }
  pool_ = pool;
  size_ = workers + 1 < wanted ? workers + 1 : wanted;
}

Team::~Team() {
  if (pool_ != nullptr) {
    pool_->release();
  }
}

int Team::size() const { return size_; }

void Team::run(void (*body)(void* context, int thread), void* context) noexcept {
  if (pool_ == nullptr) {
    body(context, 0);
    return;
  }
  pool_->start_others(0, size_, body, context);
  body(context, 0);
  pool_->join(size_);
}

}  // namespace fusedrnn::cpu
