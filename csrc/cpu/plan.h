// How a problem is spread over threads and cut into chunks: by what it would cost.
#pragma once

#include <cstdint>
#include <vector>

#include "core/problem.h"
#include "cpu/kernels/job.h"

namespace fusedrnn::cpu {

struct Plan {
  int row_groups = 1;   // the batch is cut into this many parts, which never meet
  int unit_groups = 1;  // the hidden units into this many, which meet every step
  int64_t chunk_steps = 1;
  double cycles = 0;  // its estimate

  int threads() const { return row_groups * unit_groups; }
};

// How many sequences live at how many steps, in a few parts.
struct Profile {
  struct Part {
    int64_t steps, sequences;
  };
  static constexpr int kMostParts = 8;
  int count = 0;
  Part parts[kMostParts];
};

// What a grid of threads would cost, in cycles: all stages of one step, as the slowest thread sees
// it, and the whole call. Of several lengths it is the mean step.
struct Estimate {
  int row_groups, unit_groups;
  double products;  // multiply-adds
  double weights;   // reading the packed weights; hidden behind the products, or hiding them
  double cells;     // gate maths
  double barrier;   // and cache lines that move between threads
  double total;
};

// Cycles in which two threads meet, the imbalance that it uncovers included: of cores that share a
// cache, and of those of different sockets.
constexpr double kNearBarrier = 700, kFarBarrier = 5000;

struct Threads {
  int most;
  double barrier = kNearBarrier;
  bool awake = false;  // still looking for work after the last call, so that a team starts at once

  double team_cycles() const;
};

// The cheapest plan of some threads. `considered` receives every grid's estimate.
using Planner = Plan (*)(const KernelShape& shape, const Problem& problem, const Profile& profile,
                         const Threads& threads, std::vector<Estimate>* considered);
Plan plan_forward(const KernelShape& shape, const Problem& problem, const Profile& profile,
                  const Threads& threads, std::vector<Estimate>* considered);
Plan plan_backward(const KernelShape& shape, const Problem& problem, const Profile& profile,
                   const Threads& threads, std::vector<Estimate>* considered);
// Of a single step with packed weights.
Plan plan_step(const KernelShape& shape, const Problem& problem, const Profile& profile,
               const Threads& threads, std::vector<Estimate>* considered);

// That of threads of the pool: where it depends on how far they are from each other, that is found
// out. `threads` becomes what the plan was made with.
Plan plan_for_pool(Planner planner, const KernelShape& shape, const Problem& problem,
                   const Profile& profile, Threads& threads);

// What a barrier takes of so many threads of the pool, as measured, between the two above.
double barrier_of_pool(int threads);

// What a call, on threads that share units out in so many parts, wants of a matrix unit.
MatrixUse matrix_use(const KernelShape& shape, const Problem& problem, int unit_groups);

// Whether the weights of a problem, those of its input too, stay in the cache of one core, or of
// each of so many that share its units out.
bool weights_stay_near(const KernelShape& shape, const Problem& problem, int unit_groups = 1);

// How many steps' inputs a forward pass on a grid of threads projects at a time.
int64_t projected_steps(const KernelShape& shape, const Problem& problem, const Plan& grid);

// To wake a team of threads, which may be parked, and wait for its end: part of what a plan of
// several threads costs. Of one that is awake it is a word to each thread and one back.
constexpr double kTeamCycles = 50000;
inline double Threads::team_cycles() const { return awake ? 2 * barrier : kTeamCycles; }

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t n, int64_t unit) { return divide_up(n, unit) * unit; }
inline int64_t panel_units(const KernelShape& shape) {
  return int64_t{shape.unit_vectors} * shape.width;
}
inline int64_t panels_of(const KernelShape& shape, int64_t units) {
  return divide_up(units, panel_units(shape));
}

}  // namespace fusedrnn::cpu
