// A thread's asynchronous copies into shared memory: they happen when it waits for them.
#pragma once

#include <cstddef>
#include <cstring>
#include <vector>

namespace fusedrnn::emulator {

class ThreadCopies {
 public:
  struct Copy {
    void* to;
    const void* from;
    size_t bytes;
  };

  void add(Copy copy) { open_.push_back(copy); }
  void commit() {
    groups_.push_back(std::move(open_));
    open_.clear();
  }
  void wait(int groups_left) {
    while (groups_.size() > static_cast<size_t>(groups_left)) {
      for (const Copy& copy : groups_.front()) std::memcpy(copy.to, copy.from, copy.bytes);
      groups_.erase(groups_.begin());
    }
  }
  bool under_way() const { return !open_.empty() || !groups_.empty(); }
  void clear() {
    open_.clear();
    groups_.clear();
  }

 private:
  std::vector<Copy> open_;
  std::vector<std::vector<Copy>> groups_;
};

}  // namespace fusedrnn::emulator
