#include <atomic>
#include <cstdlib>
#include <string>
#include <string_view>

#include "core/error.h"
#include "cpu/threads/cpus.h"
#include "cpu/threads/pool.h"

namespace fusedrnn::cpu {

namespace {

constexpr int kNotSet = 0;

// Atomics rather than static initialisation, whose lock a fork could copy while it is held.
std::atomic<int> requested{kNotSet};  // by set_num_threads
std::atomic<int> from_surroundings{kNotSet};

[[noreturn]] void reject(std::string_view name, std::string_view got) {
  throw_value_error(std::string(name) + ": expected a number of threads from 1 to " +
                    std::to_string(kMaxThreads) + ", got " + std::string(got));
}

// A decimal number from 1 to kMaxThreads with blanks around it, else kNotSet.
int parse_num_threads(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) {
    return kNotSet;
  }
  text = text.substr(first, text.find_last_not_of(kBlanks) + 1 - first);
  int n = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') {
      return kNotSet;
    }
    n = n * 10 + (c - '0');
    if (n > kMaxThreads) {
      return kNotSet;
    }
  }
  return n;
}

}  // namespace

int choose_num_threads(const char* fusedrnn_num_threads, const char* omp_num_threads, int cpus) {
  // Set to nothing is how shells unset a variable for one command.
  if (fusedrnn_num_threads != nullptr && *fusedrnn_num_threads != '\0') {
    const int n = parse_num_threads(fusedrnn_num_threads);
    if (n == kNotSet) {
      reject("FUSEDRNN_NUM_THREADS", "'" + std::string(fusedrnn_num_threads) + "'");
    }
    return n;
  }
  if (omp_num_threads != nullptr) {
    // OpenMP allows one number for each level of nesting. What it holds otherwise is not ours to
    // judge.
    const std::string_view list(omp_num_threads);
    const int n = parse_num_threads(list.substr(0, list.find(',')));
    if (n != kNotSet) {
      return n;
    }
  }
  return cpus;
}

int get_num_threads() {
  int n = requested.load(std::memory_order_relaxed);
  if (n != kNotSet) {
    return n;
  }
  n = from_surroundings.load(std::memory_order_relaxed);
  if (n == kNotSet) {
    n = choose_num_threads(std::getenv("FUSEDRNN_NUM_THREADS"), std::getenv("OMP_NUM_THREADS"),
                           available_cpus());
    from_surroundings.store(n, std::memory_order_relaxed);
  }
  return n;
}

void set_num_threads(int n) {
  if (n < 1 || n > kMaxThreads) {
    reject("n", std::to_string(n));
  }
  requested.store(n, std::memory_order_relaxed);
}

}  // namespace fusedrnn::cpu
