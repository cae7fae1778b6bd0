// The gates of a lean problem once more, before the walk back over a chunk of steps: the states
// that enter its steps are known, so all of its rows (t,b) are the sequences of a single step.
#pragma once

#include "cuda/general/noise.h"
#include "cuda/general/projection.h"

namespace fusedrnn::cuda {

class GatesAgain {
 public:
  GatesAgain(const BackwardCall& call, const States& states, const NoiseMasks& noise,
             int64_t chunk_steps, Layout& layout);

  // How many steps have their gates at a time.
  static int64_t chunk_steps(const Run& run);

  void use(char* memory) {
    memory_ = memory;
    projection_.use(memory);
  }
  void begin(const Products& products) const;
  // Of the chunk that the states have entered. `products`: those of forward.
  void run(const Products& products, int64_t first_time, int64_t steps) const;

 private:
  // Of each step, the first `living` rows.
  void multiply(const Products& products, int stage, int64_t first_step, int64_t steps,
                int64_t living) const;
  ForwardStep arguments(int stage, int64_t first_step, int64_t first_time, int64_t rows) const;

  const BackwardCall& call_;
  const Problem& p_;
  const States& states_;
  const NoiseMasks& noise_;
  const Run& run_;
  InputProjection projection_;
  StagedMatrix weights_[kMaxParameters];
  Piece u_, row_;  // as of GeneralForward
  char* memory_ = nullptr;
};

}  // namespace fusedrnn::cuda
