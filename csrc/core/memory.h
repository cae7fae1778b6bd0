// Memory for results, tapes and scratch.
#pragma once

#include <cstddef>

namespace fusedrnn {

// At least this much has to be wanted before whole huge pages are worth their rounding.
constexpr size_t kHugeThreshold = size_t{4} << 20;

// 64-byte aligned, uninitialised; large blocks lie on huge pages where the system has them. A size
// of zero gives a valid pointer. Throws OutOfMemory.
void* aligned_allocate(size_t bytes);
void aligned_release(void* block) noexcept;

// The memory of a result, a tape or a call's scratch. Released blocks are kept for the next call
// (block_cache.h).
class Block {
 public:
  Block() = default;
  explicit Block(size_t bytes);
  ~Block();
  Block(Block&& other) noexcept;
  Block& operator=(Block&& other) noexcept;
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;  // what was allocated, at least what was asked for
};

// Cuts memory into aligned pieces, in the order in which they are asked for. Without memory it only
// counts how much they take.
class Arena {
 public:
  static constexpr size_t kAlignment = 64;  // of every piece within the memory

  Arena() = default;
  explicit Arena(void* memory) : memory_(static_cast<char*>(memory)) {}

  // `pointer` is to `count` elements of `size` bytes; to none it is null. Throws OutOfMemory where
  // the total overflows.
  template <class T>
  void add(T*& pointer, size_t count, size_t size) {
    const size_t offset = total_;
    const bool empty = reserve(count, size) == 0;
    pointer = empty || memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + offset);
  }
  size_t total() const { return total_; }

 private:
  size_t reserve(size_t count, size_t size);  // adds to the total, returns by how much

  char* memory_ = nullptr;
  size_t total_ = 0;
};

// Memory for all that lay_out(arena) adds, which then points into it.
template <class LayOut>
[[nodiscard]] Block allocate(const LayOut& lay_out) {
  Arena sizes;
  lay_out(sizes);
  Block block(sizes.total());
  Arena pieces(block.data());
  lay_out(pieces);
  return block;
}

}  // namespace fusedrnn
