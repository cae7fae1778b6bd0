// The cost model. Times are in cycles of a core with two vector multiply-adds a cycle; the figures
// are those of server cores since 2017 and need not be exact: they weigh computing against waiting.
#include "cpu/plan.h"

#include <algorithm>

#include "cpu/threads/core_latency.h"

#if defined(__linux__)
#include <unistd.h>
#endif

namespace fusedrnn::cpu {

namespace {

constexpr double kMultiplyAddsPerCycle = 2;
constexpr double kMultiplyAddLatency = 4;
// Of vectors, by a matrix unit: AMX takes 16 cycles for 16 rows, 16 columns and 32 numbers of
// bfloat16 along k, which are 256 vector instructions, and where both are read from the
// second-level cache 23, as seen on a Granite Rapids (docs/decisions/0023-amx-measured.md).
constexpr double kMatrixMultiplyAddsPerCycle = 11;
constexpr double kNearBytesPerCycle = 40;  // from the core's own cache
constexpr double kFarBytesPerCycle = 10;   // from beyond it
constexpr double kCellCycles = 35;         // of one gate of one vector of units: its activation
// Of a round trip of a word between two threads: what it takes whatever lies between them, and what
// its other nanoseconds mean to a step, in which more than a barrier's word moves. As seen on a Zen
// 5: trips of 85 ns where steps lost 150 to the barrier, of 245 where they lost 500.
constexpr double kOwnNanoseconds = 30, kCyclesPerNanosecond = 13;
// Cache lines that move between threads in as long as a barrier takes, and the most such times:
// what more there is comes while the products run.
constexpr double kLinesPerBarrier = 12, kMostExchanges = 2;
constexpr int64_t kLineBytes = 64;
// Of threads with sequences of their own, whose rows of a step lie side by side in y and in states:
// each core's hardware asks for the lines that come after its own, up to the end of a page, and
// takes them from the thread that is to write them. Near threads do not notice; of far ones it is
// this part of what a barrier takes more than between those.
constexpr int64_t kPageBytes = 4096;
constexpr double kNeighbouringLinesPerBarrier = 20, kMostNeighbouring = 1.4;

constexpr int64_t kChunkBytes = 256 << 10;  // of projected inputs a thread: stays in its cache
constexpr int64_t kChunkRows = 24;          // at least: full tiles for the projection

int64_t near_cache_bytes() {
#if defined(_SC_LEVEL2_CACHE_SIZE)
  const int64_t bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (bytes > 0) return bytes;
#endif
  return 1 << 20;
}

// Asked once, when the library is loaded: a static inside a function is a lock that a fork can copy
// while it is held.
const int64_t kNearCacheBytes = near_cache_bytes();

// Whether products go to a matrix unit: if they take longer than it does to wake up. Then it reads
// weights that are near 1.5 times as fast as vectors multiply them, where those are of 16 bits; of
// 8 bits vectors take single rows as fast.
bool uses_matrix_unit(const KernelShape& shape, const Problem& p) {
  constexpr int64_t kFewestBytes = 512 << 10;  // of weights, for each row anew
  if (shape.matrix_rows == 0 || (shape.quantised && p.B == 1)) return false;
  const int64_t depth = p.I + p.H / p.heads, rows = p.T * p.B;
  const int64_t bytes = shape.gates * p.H * depth * static_cast<int64_t>(shape.panel_bytes);
  return rows >= shape.matrix_fewest_rows || rows * bytes >= kFewestBytes;
}

// A stage's product and its gate maths, as a thread sees it in one step.
struct StageWork {
  int64_t panels;   // in all
  int64_t vectors;  // in a panel
  int64_t depth;    // 0: there is no product
  int64_t tile_rows;
  double cell_cycles;  // of one row of one panel
  bool meets;          // whether threads that share the panels out meet after it
  int64_t made_bytes;  // of one row: what the next product reads of the threads together
};

// A barrier a step, and reading what the others made of `rows` rows.
double exchange_cycles(const StageWork& work, int64_t rows, int unit_groups, double barrier) {
  if (unit_groups == 1 || !work.meets) return 0;
  const double bytes =
      static_cast<double>(rows * work.made_bytes) * (unit_groups - 1) / unit_groups;
  return barrier * (1 + std::min(bytes / kLineBytes / kLinesPerBarrier, kMostExchanges));
}

// Adds a stage to the estimate of a step, of which `part` of the steps are; returns its cycles.
double add_stage(const StageWork& work, const Problem& p, const Profile::Part& part,
                 const KernelShape& shape, double barrier, Estimate& sum) {
  const double weight = static_cast<double>(part.steps) / static_cast<double>(p.T);
  const int64_t rows = divide_up(part.sequences, sum.row_groups);
  const int64_t panels = divide_up(work.panels, sum.unit_groups);
  const bool by_matrix_unit = uses_matrix_unit(shape, p);
  const int64_t tiles = divide_up(rows, by_matrix_unit ? shape.matrix_rows : work.tile_rows);
  const double chains = static_cast<double>(std::min(rows, work.tile_rows) * work.vectors *
                                            (tiles == 1 ? std::min<int64_t>(panels, 2) : 1));
  const double rate = by_matrix_unit
                          ? kMatrixMultiplyAddsPerCycle
                          : std::min(kMultiplyAddsPerCycle, chains / kMultiplyAddLatency);
  const double products =
      work.depth == 0
          ? 0
          : static_cast<double>(rows * panels * work.vectors * work.depth) / shape.depth / rate;
  const int64_t bytes =
      panels * work.vectors * work.depth * shape.width * static_cast<int64_t>(shape.panel_bytes);
  const double stream = bytes > kNearCacheBytes * 3 / 4
                            ? static_cast<double>(bytes) / kFarBytesPerCycle
                            : static_cast<double>(bytes * tiles) / kNearBytesPerCycle;
  const double cells = static_cast<double>(rows * panels) * work.cell_cycles;
  const double exchange = exchange_cycles(work, rows, sum.unit_groups, barrier);
  sum.products += weight * products;
  sum.weights += weight * stream;
  sum.cells += weight * cells;
  sum.barrier += weight * exchange;
  return std::max(products, stream) + cells + exchange;
}

// What rows of `row_bytes` lose to those of another thread in the same page, in each step.
double neighbour_cycles(int64_t rows, int64_t row_bytes, int row_groups, double barrier) {
  const int64_t bytes = rows * row_bytes;
  if (row_groups == 1 || bytes >= kPageBytes) return 0;
  const double lines = static_cast<double>(bytes) / kLineBytes;
  return (barrier - kNearBarrier) *
         std::min(lines / kNeighbouringLinesPerBarrier, kMostNeighbouring);
}

// Whether the largest of `groups` parts is smaller than with one group less.
bool worth_cutting(int64_t total, int groups) {
  return groups == 1 || divide_up(total, groups) < divide_up(total, groups - 1);
}

// `parallel`: cycles of the work outside the steps, which divides evenly.
Plan cheapest(const StageWork* stages, int count, double parallel, const KernelShape& shape,
              const Problem& p, const Profile& profile, const Threads& threads,
              std::vector<Estimate>* considered) {
  Estimate best{};
  // Norms are those of a thread's own rows.
  const int most = shape.norm_count > 0 ? 1 : threads.most;
  for (int unit_groups = 1; unit_groups <= most; ++unit_groups) {
    if (!worth_cutting(stages[0].panels, unit_groups)) continue;
    for (int row_groups = 1; row_groups * unit_groups <= threads.most; ++row_groups) {
      if (!worth_cutting(p.B, row_groups)) continue;
      const int used = row_groups * unit_groups;
      Estimate estimate{};
      estimate.row_groups = row_groups;
      estimate.unit_groups = unit_groups;
      estimate.total = parallel / used + (used > 1 ? threads.team_cycles() : 0);
      for (int part = 0; part < profile.count; ++part) {
        const Profile::Part& alike = profile.parts[part];
        const auto steps = static_cast<double>(alike.steps);
        const double neighbours = neighbour_cycles(divide_up(alike.sequences, row_groups),
                                                   p.P * static_cast<int64_t>(shape.edge_bytes),
                                                   row_groups, threads.barrier);
        estimate.barrier += neighbours * steps / static_cast<double>(p.T);
        estimate.total += neighbours * steps;
        for (int i = 0; i < count; ++i) {
          estimate.total +=
              steps * add_stage(stages[i], p, alike, shape, threads.barrier, estimate);
        }
      }
      if (considered != nullptr) considered->push_back(estimate);
      if (best.row_groups == 0 || estimate.total < best.total) best = estimate;
    }
  }
  return {best.row_groups, best.unit_groups, 1, best.total};
}

double rows_of(const Profile& profile) {
  int64_t rows = 0;
  for (int i = 0; i < profile.count; ++i)
    rows += profile.parts[i].steps * profile.parts[i].sequences;
  return static_cast<double>(rows);
}

double product_cycles(double rows, double columns, double depth, const KernelShape& shape,
                      bool by_matrix_unit) {
  const double rate = by_matrix_unit ? kMatrixMultiplyAddsPerCycle : kMultiplyAddsPerCycle;
  return rows * columns * depth / (shape.width * shape.depth) / rate;
}

StageWork forward_stage(const KernelShape& shape, const Problem& p, const StageShape& stage) {
  const bool multiplies = stage.operand != cells::Operand::none;
  const int vectors = (multiplies ? stage.product.gates : shape.gates) * shape.unit_vectors;
  return {panels_of(shape, extent(p, stage.units)),
          vectors,
          multiplies ? depth_of(p, stage.product) : 0,
          shape.tile_rows,
          kCellCycles * (vectors + shape.state_count * shape.unit_vectors),
          stage.meets,
          extent(p, stage.units) * static_cast<int64_t>(shape.row_bytes)};
}

}  // namespace

Plan plan_forward(const KernelShape& shape, const Problem& p, const Profile& profile,
                  const Threads& threads, std::vector<Estimate>* considered) {
  StageWork stages[kMaxStages];
  for (int i = 0; i < shape.stage_count; ++i) {
    stages[i] = forward_stage(shape, p, shape.stages[i]);
  }
  const double inputs = static_cast<double>(p.I), units = static_cast<double>(p.H);
  const double depth = units / static_cast<double>(p.heads);
  const double parallel = product_cycles(rows_of(profile), shape.gates * units, inputs, shape,
                                         uses_matrix_unit(shape, p)) +
                          shape.gates * units * (depth + inputs) / shape.width * 4;  // packing
  Plan plan = cheapest(stages, shape.stage_count, parallel, shape, p, profile, threads, considered);

  plan.chunk_steps = projected_steps(shape, p, plan);
  return plan;
}

Plan plan_step(const KernelShape& shape, const Problem& p, const Profile& profile,
               const Threads& threads, std::vector<Estimate>* considered) {
  // The product of the inputs reads its weights as the others do, and has no gate maths.
  StageWork stages[1 + kMaxStages] = {
      {panels_of(shape, p.H), shape.gates * shape.unit_vectors, p.I, shape.tile_rows, 0, false, 0}};
  for (int i = 0; i < shape.stage_count; ++i) {
    stages[1 + i] = forward_stage(shape, p, shape.stages[i]);
  }
  return cheapest(stages, 1 + shape.stage_count, 0, shape, p, profile, threads, considered);
}

int64_t projected_steps(const KernelShape& shape, const Problem& p, const Plan& grid) {
  const int64_t rows = divide_up(p.B, grid.row_groups);
  const int64_t panels = divide_up(panels_of(shape, p.H), grid.unit_groups);
  const int64_t row_bytes =
      panels * shape.gates * panel_units(shape) * static_cast<int64_t>(shape.real_bytes);
  const int64_t chunk_rows = std::max(kChunkRows, kChunkBytes / row_bytes);
  return std::clamp<int64_t>(chunk_rows / rows, 1, p.T);
}

Plan plan_backward(const KernelShape& shape, const Problem& p, const Profile& profile,
                   const Threads& threads, std::vector<Estimate>* considered) {
  StageWork stages[kMaxStages];
  const int64_t panel = int64_t{shape.recurrent_panel} * shape.width;
  for (int i = 0; i < shape.stage_count; ++i) {
    const StageShape& stage = shape.stages[i];
    stages[i] = {divide_up(extent(p, stage.units), panel),
                 shape.recurrent_panel,
                 stage.product.gates * extent(p, stage.product.units) / heads_of(p, stage.product),
                 8,
                 kCellCycles * shape.recurrent_panel * 2,
                 stage.meets_backward,
                 stage.product.gates * extent(p, stage.product.units) *
                     static_cast<int64_t>(shape.row_bytes)};
  }
  const double inputs = static_cast<double>(p.I), units = static_cast<double>(p.H);
  const double depth = units / static_cast<double>(p.heads);
  const double rows = rows_of(profile);
  // Forward's products once more, those of its steps by their size alone.
  const double again = p.lean ? inputs + depth : 0;
  const double parallel = product_cycles(rows, shape.gates * units, 2 * inputs + depth + again,
                                         shape, uses_matrix_unit(shape, p)) +
                          shape.gates * units * (depth + inputs) / shape.width * 4;
  return cheapest(stages, shape.stage_count, parallel, shape, p, profile, threads, considered);
}

Plan plan_for_pool(Planner planner, const KernelShape& shape, const Problem& p,
                   const Profile& profile, Threads& threads) {
  const auto plan_with = [&](double barrier) {
    threads.barrier = barrier;
    return planner(shape, p, profile, threads, nullptr);
  };
  const Plan near = plan_with(kNearBarrier);
  if (near.threads() == 1) return near;  // which other figures only make look better
  const Plan far = plan_with(kFarBarrier);
  if (near.unit_groups == far.unit_groups && near.row_groups == far.row_groups) {
    threads.barrier = kNearBarrier;
    return near;
  }
  return plan_with(barrier_of_pool(near.threads()));
}

double barrier_of_pool(int threads) {
  const double measured =
      (core_latency_nanoseconds(threads) - kOwnNanoseconds) * kCyclesPerNanosecond;
  return std::clamp(measured, kNearBarrier, kFarBarrier);
}

MatrixUse matrix_use(const KernelShape& shape, const Problem& p, int unit_groups) {
  return {uses_matrix_unit(shape, p), p.T > 1 && !weights_stay_near(shape, p, unit_groups)};
}

bool weights_stay_near(const KernelShape& shape, const Problem& p, int unit_groups) {
  const int64_t depth = p.I + p.H / p.heads;
  return shape.gates * p.H * depth * static_cast<int64_t>(shape.panel_bytes) <
         kNearCacheBytes * 3 / 4 * unit_groups;
}

}  // namespace fusedrnn::cpu
