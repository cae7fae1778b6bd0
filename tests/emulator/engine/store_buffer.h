// Stores that no fence has published, and loads that an acquire has not renewed: what makes a
// device's memory weakly ordered.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>

namespace fusedrnn::emulator {

// Bytes of memory as someone sees them, kept in lines.
class ByteOverlay {
 public:
  bool empty() const { return lines_.empty(); }
  void clear() { lines_.clear(); }
  void set(const void* address, const void* bytes, size_t size);
  void forget(const void* address, size_t size);
  // Replaces those of `bytes` that are kept.
  void apply(const void* address, void* bytes, size_t size) const;
  bool covers(const void* address, size_t size) const;
  void move_to(ByteOverlay& other);
  void publish();  // to memory itself, and forgets them

 private:
  static constexpr size_t kLine = 16;  // the largest access, which is aligned to its size
  struct Line {
    unsigned char bytes[kLine];
    uint16_t kept = 0;  // a bit a byte
  };
  std::unordered_map<uintptr_t, Line> lines_;
};

}  // namespace fusedrnn::emulator
