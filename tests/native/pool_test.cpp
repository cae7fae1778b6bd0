// Barrier and Team: under many callers, more threads than CPUs, forks and the end of the process.

#include "cpu/threads/pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "cpu/threads/core_latency.h"

// ThreadSanitizer does not support new threads in the child of a threaded process ("dup thread with
// used id": the child reuses the ids of threads that it has not got), so the tests that fork are
// left to the other builds.
#if defined(__SANITIZE_THREAD__)
// At the end of each process it would wait a second for late reports; here a dozen processes end.
extern "C" __attribute__((visibility("default"))) const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() { return "atexit_sleep_ms=50"; }
#elif !defined(FUSEDRNN_EMULATOR)
// qemu's user mode does not support those threads either: it dies of an assertion of its own.
#define FORK_TESTS 1
#endif

// The sanitizers' own memory would be refused where address space is limited.
#if defined(FORK_TESTS) && !defined(__SANITIZE_ADDRESS__)
#define ADDRESS_SPACE_TESTS 1
#endif

// What comes before a program of this target on a command line: an emulator, its options, a comma.
#ifndef FUSEDRNN_EMULATOR
#define FUSEDRNN_EMULATOR
#endif

namespace {

using fusedrnn::cpu::Barrier;
using fusedrnn::cpu::core_latency_nanoseconds;
using fusedrnn::cpu::Team;

// A time loop in small: in every step each thread adds up what all wrote in the step before. Plain
// ints, so that any hole in the barrier is a wrong sum, and a data race for ThreadSanitizer.
struct TimeLoop {
  TimeLoop(int threads, int time_steps)
      : n(threads), steps(time_steps), barrier(threads), values{} {
    values[0].assign(static_cast<size_t>(n), 1);
    values[1].assign(static_cast<size_t>(n), 0);
  }

  static void body(void* context, int thread) {
    auto& self = *static_cast<TimeLoop*>(context);
    for (int t = 0; t < self.steps; ++t) {
      const std::vector<unsigned>& from = self.values[t % 2];
      unsigned sum = 0;
      for (const unsigned value : from) {
        sum += value;
      }
      self.values[(t + 1) % 2][static_cast<size_t>(thread)] = sum + static_cast<unsigned>(thread);
      self.barrier.wait();
    }
  }

  bool is_right() const {
    std::vector<unsigned> expected(static_cast<size_t>(n), 1);
    for (int t = 0; t < steps; ++t) {
      unsigned sum = 0;
      for (const unsigned value : expected) {
        sum += value;
      }
      for (size_t i = 0; i < expected.size(); ++i) {
        expected[i] = sum + static_cast<unsigned>(i);
      }
    }
    return expected == values[steps % 2];
  }

  int n;
  int steps;
  Barrier barrier;
  std::vector<unsigned> values[2];
};

bool run_time_loop(Team& team, int steps) {
  TimeLoop loop(team.size(), steps);
  team.run(TimeLoop::body, &loop);
  return loop.is_right();
}

void test_barrier_alone() {
  Barrier barrier(1);
  for (int i = 0; i < 1000; ++i) {
    barrier.wait();
  }
}

void test_every_thread_runs_once() {
  for (const int wanted : {-1, 0, 1, 2, 3, 5, 6, 7, 22, 40}) {
    Team team(wanted);
    CHECK_EQUAL(team.size(), std::max(wanted, 1));
    std::vector<int> calls(static_cast<size_t>(team.size()), 0);
    for (int run = 1; run <= 20; ++run) {
      team.run([](void* context, int thread) { ++static_cast<int*>(context)[thread]; },
               calls.data());
      for (const int count : calls) {
        CHECK_EQUAL(count, run);
      }
    }
  }
}

void test_caller_is_thread_0() {
  Team team(4);
  std::vector<std::thread::id> ids(static_cast<size_t>(team.size()));
  team.run(
      [](void* context, int thread) {
        static_cast<std::thread::id*>(context)[thread] = std::this_thread::get_id();
      },
      ids.data());
  CHECK(ids[0] == std::this_thread::get_id());
  std::sort(ids.begin(), ids.end());
  CHECK(std::adjacent_find(ids.begin(), ids.end()) == ids.end());
}

// Back to back (workers spin) and with pauses (they are parked, or just about to be).
void test_many_runs() {
  for (int i = 0; i < 2000; ++i) {
    Team team(2);
    CHECK(run_time_loop(team, 5));
  }
  for (int i = 0; i < 200; ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(i));
    Team team(2 + i % 3);
    CHECK(run_time_loop(team, 3));
    CHECK(run_time_loop(team, 4));
  }
}

#if defined(__linux__)
// Whether every worker sleeps, which it does nowhere but where it is parked.
bool workers_sleep() {
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(task.path() / "stat");  // "7 (name) S ..."
    std::string number, name, state;
    file >> number >> name >> state;
    if (name == "(fusedrnn)" && state != "S") return false;
  }
  return true;
}

// The CPUs that the two threads of a team may use, seen from inside, after the worker has slept.
struct Seen {
  cpu_set_t of[2];

  Seen() {
    // On a crowded machine it may take long until a worker gets the CPU that it needs to park.
    for (int i = 0; i < 10000 && !workers_sleep(); ++i) usleep(1000);
    Team team(2);
    CHECK_EQUAL(team.size(), 2);
    team.run(
        [](void* context, int thread) {
          cpu_set_t& own = static_cast<Seen*>(context)->of[thread];
          CHECK_EQUAL(sched_getaffinity(0, sizeof own, &own), 0);
        },
        this);
  }
};

// A worker that slept is woken on another CPU than the caller's, and may use all of them
// afterwards.
void test_placement() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  for (int round = 0; round < 5; ++round) {
    const Seen seen;
    for (const cpu_set_t& own : seen.of) CHECK(CPU_EQUAL(&own, &allowed));
  }
}

// What the replaced sched_setaffinity() below refuses: threads that want CPUs back, so many times.
std::atomic<int> refusals{0};
std::atomic<int> reason_to_refuse{0};

// A worker that does not get its CPUs back has them at its next turn that does, and loses no others
// meanwhile. Needs another CPU to be kept off one.
void test_placement_refused() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2) return;
  for (const int reason : {EPERM, EINVAL}) {
    // EINVAL stands for CPUs that are gone: a set of all is asked for then, and refused as well.
    reason_to_refuse = reason;
    refusals = reason == EINVAL ? 6 : 3;
    int restricted = 0;
    for (int round = 0; round < 20 && refusals > 0; ++round) {
      const Seen seen;
      const int missing = CPU_COUNT(&allowed) - CPU_COUNT(&seen.of[1]);
      CHECK(missing == 0 || missing == 1);
      restricted += missing;
    }
    CHECK(restricted > 0);  // otherwise the test is none
    refusals = 0;
    const Seen seen;
    CHECK(CPU_EQUAL(&seen.of[1], &allowed));
  }
  // Gone for good: what the system has left, at once.
  reason_to_refuse = EINVAL;
  for (int round = 0; round < 5; ++round) {
    refusals = 1;
    const Seen seen;
    CHECK(CPU_EQUAL(&seen.of[1], &allowed));
  }
  refusals = 0;
}
#endif

void test_more_threads_than_cpus() {
  Team team(fusedrnn::cpu::available_cpus() * 4 + 1);
  CHECK(run_time_loop(team, 200));
}

void test_taken_pool() {
  Team team(2);
  CHECK_EQUAL(team.size(), 2);
  Team second(2);
  CHECK_EQUAL(second.size(), 1);
  CHECK(run_time_loop(second, 10));

  struct Nested {
    static void body(void* context, int thread) {
      Team nested(4);
      static_cast<int*>(context)[thread] = run_time_loop(nested, 10) ? nested.size() : -1;
    }
  };
  int sizes[2] = {0, 0};
  team.run(Nested::body, sizes);
  CHECK_EQUAL(sizes[0], 1);
  CHECK_EQUAL(sizes[1], 1);
}

// Known after it was measured once, whoever holds the pool; nothing before.
void test_core_latency() {
  {
    Team team(3);
    CHECK_EQUAL(team.size(), 3);
    CHECK(core_latency_nanoseconds(2) == 0);
    CHECK(core_latency_nanoseconds(3) == 0);
  }
  const double two = core_latency_nanoseconds(2);
  CHECK(two > 0 && two <= 1000);
  Team team(2);
  CHECK(core_latency_nanoseconds(2) == two);
  CHECK(core_latency_nanoseconds(3) == 0);
}

void test_many_callers() {
  std::atomic<int> larger{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 8; ++caller) {
    callers.emplace_back([caller, &larger] {
      for (int i = 0; i < 200; ++i) {
        Team team(2 + (caller + i) % 3);
        larger += team.size() > 1 ? 1 : 0;
        CHECK(run_time_loop(team, 10));
        CHECK(run_time_loop(team, 1));
      }
    });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
  CHECK(larger > 0);
}

void test_workers_block_signals() {
  struct Masks {
    sigset_t of[2];
    static void body(void* context, int thread) {
      pthread_sigmask(SIG_SETMASK, nullptr, &static_cast<Masks*>(context)->of[thread]);
    }
  };
  Masks masks;
  Team team(2);
  team.run(Masks::body, &masks);
  CHECK_EQUAL(sigismember(&masks.of[0], SIGINT), 0);
  CHECK_EQUAL(sigismember(&masks.of[1], SIGINT), 1);
  CHECK_EQUAL(sigismember(&masks.of[1], SIGPROF), 1);
  CHECK_EQUAL(sigismember(&masks.of[1], SIGSEGV), 0);
}

// Whether the child process came to its end and returned 0.
bool succeeded(pid_t child) {
  int status = -1;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

#ifdef FORK_TESTS
// Runs `body` in a forked child; whether it came to its end and returned true.
template <class Body>
bool in_child(Body body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);  // a hang is a failure, not an endless test
    _exit(body() ? 0 : 1);
  }
  return child > 0 && succeeded(child);
}

bool child_gets_a_team() {
  Team team(3);
  return team.size() == 3 && run_time_loop(team, 20);
}

void test_fork() {
  {
    Team team(3);
    CHECK(run_time_loop(team, 1));
  }
  CHECK(in_child(child_gets_a_team));
  // A child of the child, and a team that is held across the fork.
  CHECK(in_child([] { return child_gets_a_team() && in_child(child_gets_a_team); }));
  Team held(3);
  CHECK(in_child(child_gets_a_team));
  CHECK(run_time_loop(held, 10));
}

// The callers allocate nothing in their loops: malloc is safe beside fork, AddressSanitizer's is
// not.
void test_fork_amid_the_calls_of_others() {
  constexpr int kCallers = 3;
  std::atomic<int> ready{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller) {
    callers.emplace_back([&ready, &stop] {
      ++ready;
      while (!stop) {
        Team team(3);
        Barrier barrier(team.size());
        const auto body = [](void* context, int) {
          for (int t = 0; t < 50; ++t) {
            static_cast<Barrier*>(context)->wait();
          }
        };
        team.run(body, &barrier);
      }
    });
  }
  while (ready < kCallers) {
    std::this_thread::yield();
  }
  for (int i = 0; i < 20; ++i) {
    CHECK(in_child(child_gets_a_team));
  }
  stop = true;
  for (std::thread& caller : callers) {
    caller.join();
  }
}

#ifdef ADDRESS_SPACE_TESTS
void test_refused_threads() {
  CHECK(in_child([] {
    const rlimit nothing_more{1, 1};
    setrlimit(RLIMIT_AS, &nothing_more);
    Team team(64);
    return team.size() < 64 && run_time_loop(team, 10);
  }));
}
#endif
#endif  // FORK_TESTS

// What test_end_of_process starts: exit() runs the static destructors while the workers spin (even
// `way`), sleep (odd), or work for threads that go on (from 2).
[[noreturn]] void end_of_process(int way) {
  alarm(60);
  for (int caller = 0; caller < way / 2; ++caller) {
    std::thread([] {
      for (;;) {
        Team team(3);
        run_time_loop(team, 50);
      }
    }).detach();
  }
  {
    Team team(3);
    run_time_loop(team, 20);
  }
  if (way % 2 == 1) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  std::exit(0);
}

void test_end_of_process(const char* program) {
  for (int i = 0; i < 12; ++i) {
    const char way[] = {static_cast<char>('0' + i % 6), '\0'};
    const char* const arguments[] = {FUSEDRNN_EMULATOR program, way, nullptr};
    pid_t child = 0;
    const int error = posix_spawnp(&child, arguments[0], nullptr, nullptr,
                                   const_cast<char* const*>(arguments), environ);
    CHECK_EQUAL(error, 0);
    CHECK(error == 0 && succeeded(child));
  }
}

}  // namespace

#if defined(__linux__)
// As the C library's, but for what test_placement_refused() asks: it refuses a thread its own CPUs.
extern "C" int sched_setaffinity(pid_t thread, size_t size, const cpu_set_t* set) noexcept {
  const bool own = thread == static_cast<pid_t>(syscall(SYS_gettid));
  if (own && refusals > 0) {
    --refusals;
    errno = reason_to_refuse;
    return -1;
  }
  return static_cast<int>(syscall(SYS_sched_setaffinity, thread, size, set));
}
#endif

int main(int argc, char** argv) {
  if (argc > 1) {
    end_of_process(argv[1][0] - '0');
  }
  test_barrier_alone();
  test_every_thread_runs_once();
  test_caller_is_thread_0();
  test_many_runs();
#if defined(__linux__)
  test_placement();
  test_placement_refused();
#endif
  test_more_threads_than_cpus();
  test_taken_pool();
  test_core_latency();
  test_many_callers();
  test_workers_block_signals();
#ifdef FORK_TESTS
  test_fork();
  test_fork_amid_the_calls_of_others();
#endif
#ifdef ADDRESS_SPACE_TESTS
  test_refused_threads();
#endif
  test_end_of_process(argv[0]);
  return check::result();
}
