#include "cpu/layout.h"

#include <algorithm>

#include "core/error.h"

namespace fusedrnn::cpu {

namespace {

constexpr int64_t kBlockColumns = 512;

// Rows of a lean problem whose gates and deltas exist at a time, in all and a thread: as few as
// products need to be efficient.
constexpr int64_t kLeanChunkRows = 1024, kLeanChunkRowsOfThread = 64;

// Rows are whole cache lines, so that two threads never write into one, and at least a line more
// than the numbers take, because strides of powers of two would share cache sets and some kernels
// read a little beyond a row.
constexpr int64_t kRowUnit = 32;  // at least two vectors of any instruction set

int64_t row_stride(int64_t n, size_t bytes) {
  constexpr size_t kLineBytes = 64;
  return round_up(n, kRowUnit) + static_cast<int64_t>(kLineBytes / bytes);
}

// a*b*c; throws OutOfMemory
size_t count(int64_t a, int64_t b = 1, int64_t c = 1) {
  int64_t n = 0;
  if (__builtin_mul_overflow(a, b, &n) || __builtin_mul_overflow(n, c, &n)) throw OutOfMemory();
  return static_cast<size_t>(n);
}

void add_parts(Arena& arena, const Plan& plan, size_t numbers, size_t size, PerThread& buffer) {
  constexpr size_t kLine = Arena::kAlignment;
  buffer.bytes = (count(static_cast<int64_t>(numbers), static_cast<int64_t>(size)) + kLine - 1) /
                 kLine * kLine;
  arena.add(buffer.data, static_cast<size_t>(plan.threads()), buffer.bytes);
}

// Steps whose gradients of states wait for their norms, a power of two: as many as leave a
// first-level cache to the walk.
int64_t flow_steps(const Problem& p, int64_t ld_state) {
  constexpr int64_t kMostSteps = 16, kNumbers = 2048;
  int64_t steps = 1;
  while (steps < kMostSteps && 2 * steps * ld_state <= kNumbers / p.B) steps *= 2;
  return steps;
}

// Steps whose masks are drawn at once, as draws of one wait for each other: until they are of so
// many rows, or so many numbers.
int64_t mask_steps(const Problem& p, int64_t ld_state) {
  constexpr int64_t kMostSteps = 12, kNumbers = 1536, kFewestRows = 6;
  // A workspace may be asked for of a batch of none.
  const int64_t steps = std::max(kNumbers / ld_state, kFewestRows) / std::max<int64_t>(p.B, 1);
  return std::min(std::clamp<int64_t>(steps, 1, kMostSteps), p.T);
}

// Of the gates of so many steps.
size_t saved_numbers(const KernelShape& shape, const Problem& p, int64_t steps) {
  const int64_t units = round_up(p.H, panel_units(shape));
  return count(steps, static_cast<int64_t>(count(p.B, units)), shape.saved);
}

// Of cells with norms, for so many rows a thread.
void add_norms(Arena& arena, const Plan& plan, const KernelShape& shape, const Problem& p,
               int64_t rows, ForwardJob& job) {
  const int64_t numbers = shape.gates * round_up(p.H, panel_units(shape));
  add_parts(arena, plan, shape.norm_count > 0 ? count(numbers, rows) : 0, shape.real_bytes,
            job.sums);
}

// How the rows of the parameter gradients are cut into blocks: at the same steps whatever T is.
int64_t block_steps(const Problem& p) { return std::max<int64_t>(kBlockRows / p.B, 1); }

void cut_blocks(const Problem& p, int64_t depth_unit, BackwardJob& job) {
  job.block_steps = block_steps(p);
  if (p.B <= kBlockRows) {
    job.step_blocks = 1;
    job.block_rows = std::min(job.block_steps, p.T) * p.B;
  } else {
    job.block_rows = round_up(divide_up(p.B, divide_up(p.B, kBlockRows)), kRowUnit);
    job.step_blocks = divide_up(p.B, job.block_rows);
  }
  job.block_room = round_up(job.block_rows, std::max(kRowUnit, depth_unit));
}

// Whole blocks, so that sums over rows are the same whatever the chunks.
int64_t checkpoint_steps(const Problem& p) {
  return std::min(p.T, round_up(divide_up(kLeanChunkRows, p.B), block_steps(p)));
}

// From one checkpoint to another, whatever the threads of the forward pass.
int64_t lean_chunk_steps(const Problem& p, const Plan& plan) {
  const int64_t rows = plan.threads() * kLeanChunkRowsOfThread;
  return std::min(p.T, round_up(divide_up(rows, p.B), checkpoint_steps(p)));
}

// Of other problems steps whose deltas take so much: a cache has them still when the gradients of
// parameters are summed. Not fewer rows than of lean ones.
int64_t chunk_steps(const Problem& p, const Plan& plan, size_t row_bytes) {
  constexpr int64_t kDeltaBytes = int64_t{4} << 20;
  const int64_t rows = std::max({kDeltaBytes / static_cast<int64_t>(row_bytes), kLeanChunkRows,
                                 plan.threads() * kLeanChunkRowsOfThread});
  return std::min(p.T, round_up(divide_up(rows, p.B), block_steps(p)));
}

}  // namespace

int64_t state_stride(const KernelShape& shape, const Problem& p) {
  int64_t widest = 0;
  for (int s = 0; s < shape.state_count; ++s) {
    widest = std::max(widest, extent(p, shape.states[s].size));
  }
  for (int i = 0; i < shape.stage_count; ++i) {
    widest = std::max(widest, extent(p, shape.stages[i].units));
  }
  return row_stride(widest, shape.row_bytes);
}

bool masks_operand(const Problem& p, bool save) {
  return p.noise.state != 0 && (save || p.noise.training);
}

void add_packed(Arena& arena, const KernelShape& shape, const Problem& p, bool weights,
                PackedCell& packed) {
  const auto add = [&](const ProductShape& product, PackedProduct& target) {
    const int64_t units = round_up(extent(p, product.units), panel_units(shape));
    const size_t columns = count(units, product.gates);
    const int64_t depth = round_up(depth_of(p, product), shape.depth_unit);
    arena.add(target.weights, weights ? count(units, product.gates, depth) : 0, shape.panel_bytes);
    arena.add(target.bias, columns, shape.real_bytes);
    arena.add(target.scale, shape.quantised ? columns : 0, sizeof(float));
    arena.add(target.start, shape.quantised ? columns : 0, sizeof(int32_t));
  };
  add(shape.input, packed.input);
  for (int i = 0; i < shape.stage_count; ++i) add(shape.stages[i].product, packed.stages[i]);
  arena.add(packed.vectors, count(round_up(p.H, panel_units(shape)), shape.vector_count),
            shape.real_bytes);
}

void add_states(Arena& arena, const KernelShape& shape, const Problem& p, bool save, States& kept) {
  const int64_t row = static_cast<int64_t>(count(p.B, state_stride(shape, p)));
  const int64_t slots = save ? p.T + 1 : 2;
  const int64_t steps = save ? p.T : 1;
  const bool apart = shape.mixed || masks_operand(p, save);
  for (int s = 0; s < shape.state_count; ++s) {
    arena.add(kept.states[s], count(row, slots),
              s > 0 || shape.mixed ? shape.real_bytes : shape.row_bytes);
    if (s == 0 && shape.h_stage >= 0 && !apart) {
      kept.operands[shape.h_stage] = kept.states[0];
    }
  }
  for (int i = 0; i < shape.stage_count; ++i) {
    if (shape.stages[i].operand == cells::Operand::passed) {
      arena.add(kept.operands[i], count(row, steps),
                shape.quantised ? shape.real_bytes : shape.row_bytes);
    } else if (i == shape.h_stage && apart && !shape.quantised) {
      arena.add(kept.operands[i], count(row, slots), shape.row_bytes);
    }
  }
  // Where they are not kept, only what stages hand on within a step.
  const bool gates = save || shape.stage_count > 1;
  arena.add(kept.saved, gates ? saved_numbers(shape, p, steps) : 0, shape.saved_bytes);
  arena.add(kept.norms, count(steps, p.B, shape.norm_count), 2 * shape.real_bytes);
}

void add_checkpoints(Arena& arena, const KernelShape& shape, const Problem& p,
                     Checkpoints& checkpoints) {
  checkpoints.steps = checkpoint_steps(p);
  const int64_t row = static_cast<int64_t>(count(p.B, state_stride(shape, p)));
  for (int s = 0; s < shape.state_count; ++s) {
    arena.add(checkpoints.states[s], count(row, divide_up(p.T, checkpoints.steps)),
              s > 0 || shape.mixed ? shape.real_bytes : shape.row_bytes);
    arena.add(checkpoints.resets[s], count(extent(p, shape.states[s].size)), shape.edge_bytes);
  }
}

namespace {

template <class Job>
void add_masks(Arena& arena, const KernelShape& shape, const Problem& p, Job& job) {
  const auto add = [&](double rate, int64_t steps, void*& mask) {
    const bool drawn = p.noise.training && rate != 0;
    arena.add(mask, drawn ? count(steps, p.B, job.ld_state) : 0, shape.real_bytes);
  };
  job.noise.steps = mask_steps(p, job.ld_state);
  for (int s = 0; s < shape.state_count; ++s) {
    add(p.noise.zoneout[s], job.noise.steps, job.noise.zoneout[s]);
  }
  add(p.noise.candidate, job.noise.steps, job.noise.candidate);
  add(p.noise.state, 1, job.noise.operand);
}

}  // namespace

void add_scratch(Arena& arena, const KernelShape& shape, const Problem& p, const Plan& plan,
                 bool stream, ForwardJob& job) {
  add_masks(arena, shape, p, job);
  const int64_t rows = divide_up(p.B, plan.row_groups);
  const int64_t panels = divide_up(panels_of(shape, p.H), plan.unit_groups);
  job.ld_staged = row_stride(p.I, shape.row_bytes);
  add_parts(arena, plan, count(panels * shape.gates * panel_units(shape), rows, plan.chunk_steps),
            shape.real_bytes, job.projection);
  add_parts(arena, plan, shape.staged ? 0 : count(rows, plan.chunk_steps), sizeof(void*),
            job.inputs);
  add_parts(arena, plan, shape.staged ? count(rows, plan.chunk_steps, job.ld_staged) : 0,
            shape.row_bytes, job.staged);
  add_parts(arena, plan, shape.quantised ? count(rows, job.ld_state) : 0, shape.row_bytes,
            job.quantised);
  add_parts(arena, plan, shape.quantised ? count(rows, plan.chunk_steps + 1) : 0, sizeof(float),
            job.row_scales);
  add_norms(arena, plan, shape, p, rows, job);
  arena.add(job.passed, shape.norm_count > 0 ? count(p.B, job.ld_state) : 0, shape.real_bytes);
  int64_t depth = p.I;
  for (int i = 0; i < shape.stage_count; ++i) {
    depth = std::max(depth, extent(p, shape.stages[i].product.depth));
  }
  add_parts(arena, plan,
            stream ? count(shape.stream_panels * panel_units(shape), shape.gates,
                           round_up(depth, shape.depth_unit))
                   : 0,
            shape.panel_bytes, job.stream);
}

void add_scratch(Arena& arena, const Plan& plan, BackwardJob& job) {
  const KernelShape& shape = *job.shape;
  const BackwardCall& call = *job.call;
  const Problem& p = call.problem;
  int64_t units = p.H, columns = p.I;
  for (int i = 0; i < shape.stage_count; ++i) {
    units = std::max(units, extent(p, shape.stages[i].units));
    columns = std::max(columns, extent(p, shape.stages[i].product.depth));
  }
  // Products read the blocks of all gates as one, so nothing lies between them; that of a wider
  // projection is the last.
  job.delta_block = round_up(p.H, shape.depth_unit);
  job.ld_delta = row_stride(
      (shape.deltas - 1) * job.delta_block + round_up(units, shape.depth_unit), shape.row_bytes);
  const int64_t narrow = int64_t{shape.recurrent_panel} * shape.width;
  const int64_t wide = int64_t{shape.wide_panel} * shape.width;
  cut_blocks(p, shape.depth_unit, job);
  job.single_row = p.T == 1 && p.B == 1 && p.heads == 1;
  const size_t row_bytes = static_cast<size_t>(job.ld_delta) * shape.row_bytes;
  // Of runs that add to one dx in turn, which do not walk the same way, all deltas exist at a time.
  const bool in_turn = job.links.steps == 0 && (job.links.own || job.links.dx_before);
  job.chunk_steps = p.lean    ? lean_chunk_steps(p, plan)
                    : in_turn ? p.T
                              : chunk_steps(p, plan, row_bytes);
  job.block_columns = std::min(kBlockColumns, round_up(columns, wide));

  add_masks(arena, shape, p, job);
  const bool several = job.chunk_steps < p.T;
  arena.add(job.delta, count(job.chunk_steps + (several ? 1 : 0), p.B, job.ld_delta),
            shape.row_bytes);
  const bool norms = shape.norm_count > 0;
  arena.add(job.dnormed, norms ? count(p.B, job.ld_state, shape.normed_blocks) : 0,
            shape.real_bytes);
  arena.add(job.dpassed, norms ? count(p.B, job.ld_state) : 0, shape.real_bytes);
  job.flow_steps = flow_steps(p, job.ld_state);
  job.flow_slots = job.flow_steps * (plan.unit_groups > 1 ? 2 : 1);
  for (int s = 0; s < shape.state_count; ++s) {
    arena.add(job.carry[s], count(p.B, job.ld_state), shape.real_bytes);
    const bool wanted = call.dreset_state[s].data != nullptr;
    arena.add(job.resets[s], wanted ? count(p.B, job.ld_state) : 0, shape.real_bytes);
    const bool flows = call.flow[s] != nullptr;
    arena.add(job.flow[s], flows ? count(job.flow_slots, p.B, job.ld_state) : 0, shape.real_bytes);
    arena.add(job.row_norms[s], flows ? count(p.T, p.B) : 0, sizeof(double));
  }
  arena.add(job.vectors, count(round_up(p.H, panel_units(shape)), shape.vector_count),
            shape.real_bytes);
  for (int i = 0; i < shape.stage_count && !job.single_row; ++i) {
    const ProductShape& product = shape.stages[i].product;
    const int64_t depth = heads_of(p, product) > 1
                              ? depth_of(p, product)
                              : round_up(extent(p, product.units), shape.depth_unit);
    arena.add(job.transposed[i],
              count(round_up(extent(p, product.depth), narrow), product.gates, depth),
              shape.panel_bytes);
  }
  const bool packs_input = call.dx.data != nullptr && !job.single_row;
  arena.add(job.input, packs_input ? count(round_up(p.I, wide), shape.gates, job.delta_block) : 0,
            shape.panel_bytes);
  // The blocks of the operands of weight gradients, which are rows.
  add_parts(arena, plan, count(job.block_room, job.block_columns + shape.copied_units),
            shape.row_bytes, job.scratch);
  size_t sums[kMaxParameters] = {};
  const auto add_sums = [&](const ProductShape& product) {
    if (shape.edge_bytes == shape.real_bytes || product.weights < 0) return;
    if (call.dparameters[product.weights].data == nullptr) return;
    size_t& numbers = sums[product.weights];
    numbers = std::max(numbers, count(product.first + product.gates, extent(p, product.units),
                                      depth_of(p, product)));
  };
  add_sums(shape.input);
  for (int i = 0; i < shape.stage_count; ++i) add_sums(shape.stages[i].product);
  for (int k = 0; k < shape.vector_gradient_count; ++k) {
    const VectorShape& vector = shape.vector_gradients[k];
    if (shape.edge_bytes == shape.real_bytes) continue;
    if (call.dparameters[vector.parameter].data == nullptr) continue;
    size_t& numbers = sums[vector.parameter];
    numbers = std::max(numbers, count(vector.block + 1, extent(p, vector.units)));
  }
  for (int w = 0; w < kMaxParameters; ++w) arena.add(job.sums[w], sums[w], shape.real_bytes);
  if (p.lean) add_again(arena, plan, job);
}

void add_again(Arena& arena, const Plan& plan, BackwardJob& job) {
  const KernelShape& shape = *job.shape;
  ForwardJob& again = job.again;
  Problem chunk = job.call->problem;
  chunk.T = job.chunk_steps;
  add_states(arena, shape, chunk, true, job.kept);
  again.kept = job.kept;
  add_packed(arena, shape, chunk, true, again.packed);
  Plan forward = plan;
  forward.chunk_steps = again.chunk_steps = projected_steps(shape, chunk, plan);
  add_scratch(arena, shape, chunk, forward, false, again);
  arena.add(job.again_y, count(chunk.B, chunk.P), shape.edge_bytes);
}

}  // namespace fusedrnn::cpu
