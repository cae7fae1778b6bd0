#include "cuda/general/norms.h"

#include "cuda/kernels/norms.h"
#include "cuda/rows.h"

namespace fusedrnn::cuda {

using cells::Norm;
using cells::Normed;

void norm_statistics_of(const Run& run, int stage, const ForwardStep& step, cudaStream_t stream) {
  const Dtype real = run.types.real;
  for (size_t i = 0; i < run.cell.norms.size(); ++i) {
    const Norm& norm = run.cell.norms[i];
    if (norm.stage != stage) continue;
    NormStatistics s{};
    s.rows = {step.B, const_cast<void*>(step.statistics), step.ld_statistics, step.flags};
    s.index = static_cast<int>(i);
    s.n = norm.gates * step.N;
    s.epsilon = norm.epsilon;
    if (norm.of == Normed::input || norm.of == Normed::sum) {
      s.first = advance(step.gates, norm.first * step.N, real);
      s.ld_first = step.ld_gates;
    }
    if (norm.of != Normed::input) {
      const int first = norm.first - run.cell.stages[static_cast<size_t>(stage)].product.first;
      const void* const product = advance(step.u, first * step.N, real);
      (norm.of == Normed::sum ? s.second : s.first) = product;
      (norm.of == Normed::sum ? s.ld_second : s.ld_first) = step.ld_u;
    }
    norm_statistics(s, real, stream);
  }
}

void through_norms_of(const Run& run, int stage, const BackwardStep& step, void* passed,
                      cudaStream_t stream) {
  const Dtype real = run.types.real;
  if (step.living == 0) return;
  for (size_t i = 0; i < run.cell.norms.size(); ++i) {
    const Norm& norm = run.cell.norms[i];
    if (norm.stage != stage) continue;
    const int block = run.normed_block(static_cast<int>(i));
    ThroughNorm s{};
    s.rows = {step.living, const_cast<void*>(step.statistics), step.ld_statistics, step.flags};
    s.index = static_cast<int>(i);
    s.n = norm.gates * step.N;
    s.normed = advance(step.normed, block * step.N, real);
    s.ld_normed = step.ld_normed;
    s.x = advance(step.extra, (norm.saved - run.cell.gates) * step.N, real);
    s.ld_x = step.ld_extra;
    if (norm.of == Normed::passed) {
      s.beside = advance(step.normed, (block + norm.gates) * step.N, real);
      s.to = passed;
      s.ld_to = step.ld;
      through_norm(s, real, real, stream);
    } else {
      s.to = step.delta[run.norm_delta(norm)];
      s.ld_to = step.ld_delta;
      through_norm(s, run.types.delta, real, stream);
    }
  }
}

}  // namespace fusedrnn::cuda
