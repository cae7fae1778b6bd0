#include "cuda/general/noise.h"

#include <bit>

#include "cells/dropout.h"
#include "cuda/kernels/dropout.h"

namespace fusedrnn::cuda {

NoiseMasks::NoiseMasks(const Run& run, Layout& layout) : run_(run), p_(run.problem) {
  for (int s = 0; s < run.states(); ++s) {
    if (draws_zoneout(s)) zoneout_[s] = layout.reserve({p_.T, p_.B, run.state_size(s)}, 1);
  }
}

void NoiseMasks::draw(char* memory, cudaStream_t stream) {
  memory_ = memory;
  const Noise& noise = p_.noise;
  for (int s = 0; s < run_.states(); ++s) {
    if (!draws_zoneout(s)) continue;
    draw_hits({p_.T, p_.B, run_.state_size(s), cells::row_of_zoneout(s, noise.run),
               noise.first_step, noise.zoneout[s], noise.seed},
              reinterpret_cast<uint8_t*>(memory + zoneout_[s]), stream);
  }
}

StepNoise NoiseMasks::of_step(int64_t time) const {
  StepNoise step{};
  for (int s = 0; s < run_.states(); ++s) {
    step.share[s] = p_.noise.zoneout[s];
    step.zones |= step.share[s] != 0;
    if (!draws_zoneout(s)) continue;
    step.stays[s] =
        reinterpret_cast<const uint8_t*>(memory_ + zoneout_[s]) + time * p_.B * run_.state_size(s);
  }
  return step;
}

bool NoiseMasks::draws_zoneout(int s) const {
  return p_.noise.training && p_.noise.zoneout[s] != 0;
}

void add_noise(const Noise& noise, GraphKey& key) {
  key.add(noise.training);
  for (const double rate : noise.zoneout) key.add(std::bit_cast<uint64_t>(rate));
}

}  // namespace fusedrnn::cuda
