// Weights packed once, and the jobs that read them.
#pragma once

#include <atomic>

#include "core/memory.h"
#include "cpu/engine.h"
#include "cpu/isa/units.h"
#include "cpu/layout.h"
#include "cpu/task.h"

namespace fusedrnn::cpu {

struct Packed {
  Isa isa;
  Problem problem;  // of one step of one sequence, with heads of whole panels
  int64_t heads;    // that it was given
  Block memory;
  PackedCell cell{};
  mutable std::atomic<uint32_t> calls{0};
};

inline const Unit& unit_for(Isa isa, const Problem& p) { return unit_of(isa, arithmetic_of(p)); }

inline const KernelShape& shape_for(Isa isa, const Problem& p) {
  return unit_for(isa, p).cells[p.cell];
}

inline PackedWeights weights_of(const Packed& packed) {
  return {&packed.cell, packed.calls.fetch_add(1, std::memory_order_relaxed) % 2 != 0};
}

// A job step by step, on one thread unless it gets another grid.
inline void set_step(const ForwardCall& call, const KernelShape& shape, ForwardJob& job) {
  job.call = &call;
  job.shape = &shape;
  job.grid = {1, 1, nullptr, nullptr};
  job.ld_state = state_stride(shape, call.problem);
  job.chunk_steps = 1;
}

}  // namespace fusedrnn::cpu
