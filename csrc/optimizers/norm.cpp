#include "optimizers/norm.h"

#include <algorithm>
#include <vector>

#include "cpu/threads/pool.h"

namespace fusedrnn::optimizers {
namespace {

constexpr int64_t kBlock = 4096;         // numbers that are added up by themselves
constexpr int64_t kBlocksPerThread = 8;  // for less a thread costs more than it saves
constexpr int kChains = 16;              // sums at a time, so that none waits for itself

template <class T>
double sum_of_block(const T* numbers, int64_t size) {
  double chains[kChains] = {};
  int64_t i = 0;
  for (; i + kChains <= size; i += kChains) {
    for (int k = 0; k < kChains; ++k) {
      const auto number = static_cast<double>(numbers[i + k]);
      chains[k] += number * number;
    }
  }
  for (; i < size; ++i) {
    const auto number = static_cast<double>(numbers[i]);
    chains[i % kChains] += number * number;
  }
  double sum = 0;
  for (const double chain : chains) sum += chain;
  return sum;
}

template <class T>
double sum_of_all(const T* numbers, int64_t size) {
  struct Job {
    const T* numbers;
    int64_t size, blocks;
    int threads;
    double* sums;
  };
  const int64_t blocks = (size + kBlock - 1) / kBlock;
  std::vector<double> sums(static_cast<size_t>(blocks));
  const int64_t useful = std::max(blocks / kBlocksPerThread, int64_t{1});
  cpu::Team team(static_cast<int>(std::min<int64_t>(cpu::get_num_threads(), useful)));
  Job job{numbers, size, blocks, team.size(), sums.data()};
  team.run(
      [](void* context, int thread) {
        const Job& all = *static_cast<const Job*>(context);
        const int64_t end = all.blocks * (thread + 1) / all.threads;
        for (int64_t b = all.blocks * thread / all.threads; b < end; ++b) {
          const int64_t first = b * kBlock;
          all.sums[b] = sum_of_block(all.numbers + first, std::min(all.size - first, kBlock));
        }
      },
      &job);
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

}  // namespace

double sum_of_squares(const float* numbers, int64_t size) { return sum_of_all(numbers, size); }
double sum_of_squares(const double* numbers, int64_t size) { return sum_of_all(numbers, size); }

}  // namespace fusedrnn::optimizers
