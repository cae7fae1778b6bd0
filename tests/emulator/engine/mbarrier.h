// The barriers that lie in shared memory, and copies that count at them.
#pragma once

#include <cstdint>
#include <functional>

#include "engine/thread.h"

namespace fusedrnn::emulator {

// As 64 opaque bits of shared memory hold it.
class MBarrierState {
 public:
  void init(int arrivals);
  void expect(int bytes);
  void arrive(const char* what);
  void count(int bytes);  // that a copy has brought
  bool phase_ended(int parity) const { return phase_ != static_cast<uint64_t>(parity & 1); }
  void check(const char* what) const;  // that it has been initialised

 private:
  void end_phase_where_complete();

  static constexpr uint64_t kMark = 0x2a;  // poisoned memory has another
  uint64_t mark_ : 7;
  uint64_t phase_ : 1;
  uint64_t expected_ : 12;
  uint64_t pending_ : 12;
  int64_t bytes_ : 32;
};

// Runs `copy` at some later time, and then counts its bytes.
void copy_later(MBarrierState* barrier, int bytes, std::function<void()> copy);

void wait_for_phase(const MBarrierState* barrier, int parity, const Where& where);

}  // namespace fusedrnn::emulator
