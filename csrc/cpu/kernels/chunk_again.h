// The steps of a chunk of a lean problem once more, before the walk back over them: the forward
// pass from a checkpoint on, which leaves in the call's own memory what a default tape keeps of all
// steps, to the bit.
#pragma once

#include "cpu/kernels/backward_context.h"
#include "cpu/kernels/forward.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class F>
FUSEDRNN_ONCE void take_chunk_again(const BackwardContext<F>& context,
                                    typename F::MatrixUnit::Registers& registers) {
  const Chunk& chunk = context.chunk;
  ForwardJob job = context.job.again;
  ForwardCall call = *job.call;
  Problem& p = call.problem;
  job.call = &call;
  job.order = context.job.order;
  job.order.first_time = chunk.begin;
  if (job.order.flags != nullptr) job.order.flags += chunk.begin * p.B;
  p.T = chunk.steps();
  p.noise.first_step += chunk.begin;
  call.x.data = static_cast<typename F::Edge*>(call.x.data) + chunk.begin * call.x.t_stride;
  if (call.flags != nullptr) call.flags += chunk.begin * p.B;
  const int64_t first = p.reverse ? chunk.end - 1 : chunk.begin;
  Forward<F>(job, context.share.thread, registers).run_again(first / job.checkpoints.steps);
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
