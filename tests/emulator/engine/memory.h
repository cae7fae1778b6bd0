// The memory of the emulated devices: host memory between guard zones. What was not written, what
// was released and the guards themselves hold NaN; what was written there is found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace fusedrnn::emulator {

struct Allocation {
  enum class State : uint8_t {
    live,
    ending,  // a release of it is queued
    graphs,  // between the allocation and the release nodes of a graph
  };

  unsigned char* data = nullptr;
  size_t bytes = 0;
  int device = 0;
  State state = State::live;
  bool held = false;  // by the graph that owns it, which runs: between its two nodes
  int holders = 1;    // an array and a graph may both need it; the last to release it ends it
};

class Memory {
 public:
  // Poisoned memory. Throws Fault where there is none left, or a test wants a failure.
  Allocation& allocate(size_t bytes, int device);
  // The live allocation that begins at `address`; throws Fault.
  Allocation& at(const void* address);
  // The allocation that holds `address`, or null.
  Allocation* holding(const void* address);
  void release(const void* address);

  // Throws Fault where memory was written that nobody owned.
  void check_guards() const;
  void check_released() const;
  void repair();  // what they found

  // As work runs: that [address, address + bytes) lies in one allocation, or in none.
  void check_range(const void* address, size_t bytes, const char* what);

  size_t live_bytes() const { return live_bytes_; }
  size_t total_bytes() const;
  // Released memory stays poisoned until more than this has been released behind it.
  void set_quarantine(size_t bytes);
  // The allocation after `count` more fails; negative: none.
  void fail_after(int64_t count) { fail_after_ = count; }
  void abandon_ending();  // an error discarded the queued releases

 private:
  struct Released {
    unsigned char* data;
    size_t bytes;
  };
  unsigned char* take(size_t bytes);
  void leave_quarantine(const Released& released);

  std::map<uintptr_t, Allocation> live_;  // by the first address
  std::deque<Released> quarantine_;
  size_t quarantined_bytes_ = 0;
  size_t quarantine_limit_ = size_t{1} << 20;  // compared at every wait
  // By size. The lowest address first, as in PyTorch's allocator: calls that release all of theirs
  // get the same ones again.
  std::map<size_t, std::set<unsigned char*>> unused_;
  size_t live_bytes_ = 0;
  int64_t fail_after_ = -1;
};

void poison(void* address, size_t bytes);

}  // namespace fusedrnn::emulator
