#include "cpu/threads/core_latency.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "core/error.h"
#include "cpu/threads/pool.h"
#include "cpu/threads/spin.h"

namespace fusedrnn::cpu {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kTrips = 12;  // of which the quickest counts: others were disturbed
// Threads that have no CPU each do not meet for milliseconds: then that is the answer.
constexpr auto kLongest = std::chrono::microseconds(100);
constexpr double kMostNanoseconds = 1000;
constexpr auto kValid = std::chrono::seconds(1);

// By the number of threads, to the next power of two. Two words that are not read as one: a time
// beside the figure of another measurement is as good.
struct Measured {
  std::atomic<double> nanoseconds{0};
  std::atomic<Clock::rep> until{0};
};
Measured measured[std::bit_width(unsigned{kMaxThreads}) + 1];

// Negative: not set.
std::atomic<double> given_nanoseconds{0};
std::atomic<bool> has_read_given{false};

double read_given() {
  const char* const text = std::getenv("FUSEDRNN_CORE_LATENCY_NS");
  if (text == nullptr || *text == '\0') return -1;
  char* end = nullptr;
  const double value = std::strtod(text, &end);
  if (end != text && *end == '\0' && value >= 0 && value <= 1e6) return value;
  throw_value_error("FUSEDRNN_CORE_LATENCY_NS: expected nanoseconds from 0 to 1000000, got '" +
                    std::string(text) + "'");
}

// The first thread asks, each of the others answers in its turn: to and fro in a word of its own,
// as a barrier's goes, so that those who wait disturb nobody.
class RoundTrips {
 public:
  explicit RoundTrips(int threads) : words_(static_cast<size_t>(threads)) {}

  void run(int thread) {
    if (thread == 0) {
      ask_all();
    } else {
      answer(words_[static_cast<size_t>(thread)].number);
    }
  }
  // Of the farthest.
  Clock::duration longest() const { return longest_; }

 private:
  struct alignas(kFalseSharingBytes) Word {
    std::atomic<int> number{0};  // odd: a question
  };

  void ask_all() {
    for (size_t thread = 1; thread < words_.size(); ++thread) {
      longest_ = std::max(longest_, ask(words_[thread].number));
    }
  }

  static Clock::duration ask(std::atomic<int>& number) {
    Clock::duration least = Clock::duration::max();
    Clock::time_point begin{}, last{};
    for (int i = 0; i < kTrips; ++i) {
      number.store(2 * i + 1, std::memory_order_release);
      wait_until(number, 2 * i + 2);
      const Clock::time_point now = Clock::now();
      if (i > 0) {  // before that it was asleep
        least = std::min(least, now - last);
      } else {
        begin = now;
      }
      if (now - begin > kLongest) break;
      last = now;
    }
    number.store(kNoMore, std::memory_order_release);
    return least;
  }

  static void answer(std::atomic<int>& number) {
    for (int question = 1;; question += 2) {
      if (wait_until(number, question) == kNoMore) return;
      number.store(question + 1, std::memory_order_release);
    }
  }

  static int wait_until(const std::atomic<int>& number, int least) {
    Backoff backoff;
    for (;;) {
      const int now = number.load(std::memory_order_acquire);
      if (now >= least) return now;
      backoff.pause();
    }
  }

  static constexpr int kNoMore = std::numeric_limits<int>::max();

  std::vector<Word> words_;
  Clock::duration longest_{};
};

double measure(int threads) {
  Team team(threads);
  if (team.size() < threads) return 0;
  RoundTrips trips(threads);
  team.run([](void* context, int thread) { static_cast<RoundTrips*>(context)->run(thread); },
           &trips);
  const std::chrono::duration<double, std::nano> longest = trips.longest();
  return std::min(longest.count(), kMostNanoseconds);
}

}  // namespace

double core_latency_nanoseconds(int threads) {
  if (!has_read_given.load(std::memory_order_acquire)) {
    given_nanoseconds.store(read_given(), std::memory_order_relaxed);
    has_read_given.store(true, std::memory_order_release);
  }
  const double given = given_nanoseconds.load(std::memory_order_relaxed);
  if (given >= 0) return given;
  Measured& known = measured[std::bit_width(static_cast<unsigned>(threads - 1))];
  const Clock::rep now = Clock::now().time_since_epoch().count();
  if (now >= known.until.load(std::memory_order_acquire)) {
    const double nanoseconds = measure(threads);
    if (nanoseconds > 0) {
      known.nanoseconds.store(nanoseconds, std::memory_order_relaxed);
      const Clock::rep valid = std::chrono::duration_cast<Clock::duration>(kValid).count();
      known.until.store(now + valid, std::memory_order_release);
    }
  }
  return known.nanoseconds.load(std::memory_order_relaxed);
}

}  // namespace fusedrnn::cpu
