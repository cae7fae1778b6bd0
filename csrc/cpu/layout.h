// Where the memory of a call lies: each function adds pieces to an arena, which points the job at
// them where it has memory.
#pragma once

#include "core/memory.h"
#include "cpu/kernels/job.h"
#include "cpu/plan.h"

namespace fusedrnn::cpu {

// The stride of rows of states: of h and of what else products multiply.
int64_t state_stride(const KernelShape& shape, const Problem& p);

// `weights`: not only biases and vectors.
void add_packed(Arena& arena, const KernelShape& shape, const Problem& p, bool weights,
                PackedCell& packed);

// Whether what w_hh multiplies lies apart from h: in training it may be dropped; without, it is as
// it is in the reserve.
bool masks_operand(const Problem& p, bool save);

// `save`: of all steps, the reserve, unless the problem is lean.
void add_states(Arena& arena, const KernelShape& shape, const Problem& p, bool save, States& kept);

// What the threads of a call need while it runs. `stream`: weights are packed a few panels at a
// time.
void add_scratch(Arena& arena, const KernelShape& shape, const Problem& p, const Plan& plan,
                 bool stream, ForwardJob& job);
void add_scratch(Arena& arena, const Plan& plan, BackwardJob& job);

// The reserve of a lean problem.
void add_checkpoints(Arena& arena, const KernelShape& shape, const Problem& p,
                     Checkpoints& checkpoints);
// What backward holds of a chunk of a lean problem's steps, and what it takes them again with.
void add_again(Arena& arena, const Plan& plan, BackwardJob& job);

}  // namespace fusedrnn::cpu
