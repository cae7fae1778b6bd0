// Heads as the kernels take them: of whole panels. Where those of a problem are not, several go
// together, with zeros in their weights between them.
#pragma once

#include "core/memory.h"
#include "cpu/kernels/job.h"

namespace fusedrnn::cpu {

// How many there are then: a divisor of the problem's.
int64_t heads_of_panels(const KernelShape& shape, const Problem& p);

// Memory for w_hh of so many heads, which `weights` is then, in the place of those of the problem.
[[nodiscard]] Block widen_heads(const KernelShape& shape, const Problem& p, int64_t heads,
                                Matrix& weights);

// A call with heads of whole panels. `weights`: whether its weights are read.
template <class Call>
class WithWholeHeads {
 public:
  WithWholeHeads(const Call& call, const KernelShape& shape, bool weights) : call_(&call) {
    const Problem& p = call.problem;
    const int64_t heads = heads_of_panels(shape, p);
    if (heads == p.heads) return;
    copy_ = call;
    call_ = &copy_;
    if (weights) {
      const int w_hh = shape.stages[shape.h_stage].product.weights;
      memory_ = widen_heads(shape, p, heads, copy_.parameters[w_hh]);
    }
    copy_.problem.heads = heads;
  }
  WithWholeHeads(const WithWholeHeads&) = delete;
  WithWholeHeads& operator=(const WithWholeHeads&) = delete;

  const Call& operator*() const { return *call_; }

 private:
  const Call* call_;
  Call copy_;
  Block memory_;
};

}  // namespace fusedrnn::cpu
