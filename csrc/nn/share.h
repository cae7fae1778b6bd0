// Kernels of the instruction set in use, and tasks shared out among the pool's threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/fp_mode.h"
#include "cpu/threads/pool.h"
#include "nn/kernels/table.h"

namespace fusedrnn::nn {

template <class Real>
const cpu::NnKernels<Real>& kernels();
template <>
const cpu::NnKernels<float>& kernels();
template <>
const cpu::NnKernels<double>& kernels();

// How many threads `tasks` are worth, of `work` operations altogether.
inline int useful_threads(int64_t tasks, double work) {
  constexpr double kPerThread = 20000;  // for less than this a thread costs more than it saves
  const int64_t useful =
      std::max(static_cast<int64_t>(std::min(work / kPerThread, 1e6)), int64_t{1});
  return static_cast<int>(
      std::min({int64_t{cpu::get_num_threads()}, useful, std::max(tasks, int64_t{1})}));
}

// Calls task(i, thread) for i < tasks, each once, on the threads of `team`. Tasks write to memory
// of their own, so results do not depend on who ran them; they throw nothing.
template <class Task>
void share_out(cpu::Team& team, int64_t tasks, const Task& task) {
  struct Job {
    const Task& task;
    int64_t tasks;
    int threads;
  } job{task, tasks, team.size()};
  team.run(
      [](void* context, int thread) {
        const cpu::FlushDenormals mode;
        const Job& shared = *static_cast<const Job*>(context);
        const int64_t begin = shared.tasks * thread / shared.threads;
        const int64_t end = shared.tasks * (thread + 1) / shared.threads;
        for (int64_t i = begin; i < end; ++i) shared.task(i, thread);
      },
      &job);
}

}  // namespace fusedrnn::nn
