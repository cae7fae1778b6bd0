// Memory for results, tapes and scratch.
#pragma once

#include <cstddef>

namespace fusedrnn {

// At least this much has to be wanted before whole huge pages are worth their rounding.
constexpr size_t kHugeThreshold = size_t{4} << 20;

// 64-byte aligned, uninitialised; large blocks lie on huge pages where the system has them. A size
// of zero gives a valid pointer. Throws std::bad_alloc.
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

// Cuts a block into aligned pieces: first plan (sizes), then take (pointers), in the same order.
class Arena {
 public:
  static constexpr size_t kAlignment = 64;  // of every piece

  // Reserves `count` elements of `size` bytes; returns the piece's index. Throws std::bad_alloc
  // where the total overflows.
  int reserve(size_t count, size_t size);
  void allocate() {
    block_ = Block(total_);
    memory_ = block_.data();
  }
  // Somebody else's memory instead, of at least total() bytes.
  void use(void* memory) { memory_ = memory; }
  size_t total() const { return total_; }
  void* at(int piece) const;
  Block release() { return static_cast<Block&&>(block_); }

 private:
  static constexpr int kMaxPieces = 24;
  Block block_;
  void* memory_ = nullptr;
  size_t total_ = 0;
  size_t offsets_[kMaxPieces] = {};
  int pieces_ = 0;
};

}  // namespace fusedrnn
