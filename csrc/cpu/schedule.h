// The runs of a call: one after the other on all threads, or side by side on some each.
#pragma once

#include <span>

#include "cpu/engine.h"
#include "cpu/task.h"

namespace fusedrnn::cpu {

// How runs that could be taken at the same time are bound to each other.
enum class Bond {
  none,   // there is but one
  row,    // they write one row, or in backward read its gradient
  chain,  // each reads what the one before writes
};

template <class Call>
void run_alone(Task<Call>& task);

// Carries tasks out that stand together, and leaves none.
template <class Call>
void run_together(Tasks<Call>& tasks, Bond bond);

struct Together {
  size_t count;
  Bond bond;
};

// How many of the runs, from the first on, stand together.
template <class Call>
Together find_together(std::span<const NetworkRun<Call>> runs) {
  const auto same_row = [&](size_t i) {
    return i < runs.size() && runs[i].writes == runs[i - 1].writes;
  };
  const auto follows = [&](size_t i) {
    if (i >= runs.size() || same_row(i) || same_row(i + 1)) return false;
    const NetworkRun<Call>&run = runs[i], &before = runs[i - 1];
    return run.call.problem.reverse == before.call.problem.reverse &&
           (Task<Call>::kForward ? run.reads == before.writes : run.writes == before.reads);
  };
  size_t count = 1;
  if (same_row(1)) {
    while (same_row(count)) ++count;
    return {count, Bond::row};
  }
  while (follows(count)) ++count;
  return {count, count == 1 ? Bond::none : Bond::chain};
}

}  // namespace fusedrnn::cpu
