#include "engine/store_buffer.h"

#include <cstring>

namespace fusedrnn::emulator {
namespace {

uint16_t bits(size_t first, size_t size) {
  return static_cast<uint16_t>(((1u << size) - 1u) << first);
}

}  // namespace

void ByteOverlay::set(const void* address, const void* bytes, size_t size) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  Line& line = lines_[at / kLine];
  std::memcpy(line.bytes + at % kLine, bytes, size);
  line.kept = static_cast<uint16_t>(line.kept | bits(at % kLine, size));
}

void ByteOverlay::forget(const void* address, size_t size) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  const auto found = lines_.find(at / kLine);
  if (found == lines_.end()) return;
  found->second.kept = static_cast<uint16_t>(found->second.kept & ~bits(at % kLine, size));
}

void ByteOverlay::apply(const void* address, void* bytes, size_t size) const {
  const auto at = reinterpret_cast<uintptr_t>(address);
  const auto found = lines_.find(at / kLine);
  if (found == lines_.end()) return;
  for (size_t i = 0; i < size; ++i) {
    const size_t byte = at % kLine + i;
    if ((found->second.kept >> byte & 1u) != 0) {
      static_cast<unsigned char*>(bytes)[i] = found->second.bytes[byte];
    }
  }
}

bool ByteOverlay::covers(const void* address, size_t size) const {
  const auto at = reinterpret_cast<uintptr_t>(address);
  const auto found = lines_.find(at / kLine);
  const uint16_t wanted = bits(at % kLine, size);
  return found != lines_.end() && (found->second.kept & wanted) == wanted;
}

void ByteOverlay::move_to(ByteOverlay& other) {
  for (const auto& [at, line] : lines_) {
    for (size_t i = 0; i < kLine; ++i) {
      if ((line.kept >> i & 1u) != 0) {
        other.set(reinterpret_cast<const void*>(at * kLine + i), line.bytes + i, 1);
      }
    }
  }
  lines_.clear();
}

void ByteOverlay::publish() {
  for (const auto& [at, line] : lines_) {
    for (size_t i = 0; i < kLine; ++i) {
      if ((line.kept >> i & 1u) != 0) {
        *reinterpret_cast<unsigned char*>(at * kLine + i) = line.bytes[i];
      }
    }
  }
  lines_.clear();
}

}  // namespace fusedrnn::emulator
