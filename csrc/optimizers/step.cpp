#include "optimizers/step.h"

#include <algorithm>

#include "cpu/fp_mode.h"
#include "cpu/threads/pool.h"

namespace fusedrnn::optimizers {
namespace {

// For less than this a thread costs more than it saves.
constexpr int64_t kNumbersPerThread = 16384;
// Shares begin at multiples of this, so that threads write to no line of each other's.
constexpr int64_t kGrain = 256;

int64_t share_begin(int64_t total, int thread, int threads) {
  if (thread == threads) return total;
  return total / kGrain * thread / threads * kGrain;
}

template <class Rule, class T>
struct Job {
  const Rule& rule;
  const std::vector<Numbers<T>>& parameters;
  int64_t total;
  int threads;

  // All numbers of all parameters stand in one row, of which each thread takes a part.
  void run(int thread) const noexcept {
    const cpu::FlushDenormals mode;
    const int64_t begin = share_begin(total, thread, threads);
    const int64_t end = share_begin(total, thread + 1, threads);
    int64_t first = 0;  // of the parameter, in that row
    for (const Numbers<T>& numbers : parameters) {
      const int64_t from = std::max(begin - first, int64_t{0});
      const int64_t to = std::min(end - first, numbers.size);
      if (from < to) rule.apply(numbers.part(from, to));
      first += numbers.size;
    }
  }
};

template <class Rule, class T>
void step_of(const Rule& rule, const std::vector<Numbers<T>>& parameters) {
  int64_t total = 0;
  for (const Numbers<T>& numbers : parameters) total += numbers.size;
  const int64_t useful = std::max(total / kNumbersPerThread, int64_t{1});
  cpu::Team team(static_cast<int>(std::min<int64_t>(cpu::get_num_threads(), useful)));
  Job<Rule, T> job{rule, parameters, total, team.size()};
  team.run(
      [](void* context, int thread) { static_cast<const Job<Rule, T>*>(context)->run(thread); },
      &job);
}

}  // namespace

void step(const Sgd& rule, const std::vector<Numbers<float>>& parameters) {
  step_of(rule, parameters);
}
void step(const Sgd& rule, const std::vector<Numbers<double>>& parameters) {
  step_of(rule, parameters);
}
void step(const Adam& rule, const std::vector<Numbers<float>>& parameters) {
  step_of(rule, parameters);
}
void step(const Adam& rule, const std::vector<Numbers<double>>& parameters) {
  step_of(rule, parameters);
}
void step(const RmsProp& rule, const std::vector<Numbers<float>>& parameters) {
  step_of(rule, parameters);
}
void step(const RmsProp& rule, const std::vector<Numbers<double>>& parameters) {
  step_of(rule, parameters);
}

}  // namespace fusedrnn::optimizers
