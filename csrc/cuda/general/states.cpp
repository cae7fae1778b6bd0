#include "cuda/general/states.h"

#include <algorithm>

namespace fusedrnn::cuda {

States::States(const Run& run, Kept kept, int64_t chunk_steps, const Order& order, Layout& layout,
               Layout& own)
    : run_(run),
      kept_(kept),
      order_(order),
      slots_{run.problem.T, run.problem.reverse, kept != none} {
  const Types& types = run.types;
  const int64_t T = run.problem.T, B = run.problem.B, H = run.problem.H;
  const int64_t slots = kept != none ? T + 1 : 2;
  for (int s = 0; s < run.states(); ++s) {
    state_[s] = {layout, slots, B, run.state_size(s), run.state_type(s)};
  }
  operand_ = types.mixed || run.masks_operand(kept != none)
                 ? Piece(layout, slots, B, run.state_size(0), types.row)
                 : state_[0];
  for (int stage = 1; stage < run.stages(); ++stage) {
    if (!run.multiplies_passed(stage)) continue;
    passed_[stage] = {own, keeps_gates() ? chunk_steps : 1, B, run.units(stage - 1), types.row};
  }
  gates_ = {own, chunk_steps, B, run.cell.gates * H, types.real};
  if (keeps_gates()) {
    const int64_t beyond = std::max(run.cell.saved - run.cell.gates, 0) * H;
    extra_ = {own, chunk_steps, B, beyond, types.real};
  }
  if (const auto norms = static_cast<int64_t>(run.cell.norms.size()); norms > 0) {
    statistics_ = {own, keeps_gates() ? chunk_steps : 1, B, 2 * norms, types.real};
  }
  flags_ = layout.reserve({T, B}, 1);
  numbers_ = layout.reserve({B}, sizeof(int64_t));
  ends_ = layout.reserve({B}, sizeof(int64_t));
  first_rows_ = layout.reserve({T + 1}, sizeof(int64_t));
}

}  // namespace fusedrnn::cuda
