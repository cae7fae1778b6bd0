#include "cuda/general/noise.h"

#include <bit>

#include "cells/dropout.h"
#include "cuda/kernels/dropout.h"

namespace fusedrnn::cuda {

NoiseMasks::NoiseMasks(const Run& run, Layout& layout) : run_(run), p_(run.problem) {
  for (int s = 0; s < run.states(); ++s) {
    if (draws_zoneout(s)) zoneout_[s] = layout.reserve({p_.T, p_.B, run.state_size(s)}, 1);
  }
  if (draws_operand()) operand_ = layout.reserve({p_.B, run.state_size(0)}, 1);
  if (draws_candidate()) candidate_ = layout.reserve({p_.T, p_.B, p_.H}, 1);
}

void NoiseMasks::draw(char* memory, cudaStream_t stream) {
  memory_ = memory;
  const Noise& noise = p_.noise;
  if (draws_operand()) {
    draw_hits({1, p_.B, run_.state_size(0), cells::row_of_mask(cells::Mask::state, noise.run), 0,
               noise.state, noise.seed},
              reinterpret_cast<uint8_t*>(memory + operand_), stream);
  }
  if (draws_candidate()) {
    draw_hits({p_.T, p_.B, p_.H, cells::row_of_mask(cells::Mask::candidate, noise.run),
               noise.first_step, noise.candidate, noise.seed},
              reinterpret_cast<uint8_t*>(memory + candidate_), stream);
  }
  for (int s = 0; s < run_.states(); ++s) {
    if (!draws_zoneout(s)) continue;
    draw_hits({p_.T, p_.B, run_.state_size(s), cells::row_of_zoneout(s, noise.run),
               noise.first_step, noise.zoneout[s], noise.seed},
              reinterpret_cast<uint8_t*>(memory + zoneout_[s]), stream);
  }
}

bool NoiseMasks::draws_candidate() const { return p_.noise.training && p_.noise.candidate != 0; }

bool NoiseMasks::draws_operand() const { return p_.noise.training && p_.noise.state != 0; }

void NoiseMasks::mask_operand(const void* from, Dtype from_type, void* to, Dtype to_type,
                              int64_t ld, Copy copy, cudaStream_t stream) const {
  copy.from = {const_cast<void*>(from), p_.B * ld, ld};
  copy.to = {to, p_.B * ld, ld};
  if (draws_operand()) {
    copy.dropped = reinterpret_cast<const uint8_t*>(memory_ + operand_);
    copy.scale = cells::DropRate::of(p_.noise.state).scale;
  }
  copy_rows(copy, from_type, to_type, stream);
}

StepNoise NoiseMasks::of_step(int64_t time) const {
  StepNoise step = of_gates(time);
  for (int s = 0; s < run_.states(); ++s) {
    step.share[s] = p_.noise.zoneout[s];
    step.zones |= step.share[s] != 0;
    if (!draws_zoneout(s)) continue;
    step.stays[s] =
        reinterpret_cast<const uint8_t*>(memory_ + zoneout_[s]) + time * p_.B * run_.state_size(s);
  }
  return step;
}

StepNoise NoiseMasks::of_gates(int64_t time) const {
  StepNoise step{};
  if (draws_candidate()) {
    step.dropped = reinterpret_cast<const uint8_t*>(memory_ + candidate_) + time * p_.B * p_.H;
    step.candidate_scale = cells::DropRate::of(p_.noise.candidate).scale;
  }
  return step;
}

bool NoiseMasks::draws_zoneout(int s) const {
  return p_.noise.training && p_.noise.zoneout[s] != 0;
}

void add_noise(const Noise& noise, GraphKey& key) {
  key.add(noise.training);
  for (const double rate : noise.zoneout) key.add(std::bit_cast<uint64_t>(rate));
  key.add(std::bit_cast<uint64_t>(noise.candidate));
  key.add(std::bit_cast<uint64_t>(noise.state));
}

}  // namespace fusedrnn::cuda
