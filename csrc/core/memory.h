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

// Cuts a block into aligned pieces: first each is added, with the pointer that will be to it, then
// the pointers are set.
class Arena {
 public:
  static constexpr size_t kAlignment = 64;  // of every piece within the block

  // `count` elements of `size` bytes; none: the pointer becomes null. Throws std::bad_alloc where
  // the total overflows.
  template <class T>
  void add(T*& pointer, size_t count, size_t size) {
    const size_t offset = total_;
    const bool empty = reserve(count, size) == 0;
    add_piece({&pointer, set<T>, offset, empty});
  }
  // One more pointer to the piece that was added last.
  template <class T>
  void share(T*& pointer) {
    const Piece& last = pieces_[count_ - 1];
    add_piece({&pointer, set<T>, last.offset, last.empty});
  }
  size_t total() const { return total_; }
  // `memory`: at least total() bytes.
  void point_into(void* memory) const;
  [[nodiscard]] Block allocate() const {
    Block block(total_);
    point_into(block.data());
    return block;
  }

 private:
  struct Piece {
    void* pointer;  // its address
    void (*set)(void* pointer, void* memory);
    size_t offset;
    bool empty;
  };

  template <class T>
  static void set(void* pointer, void* memory) {
    *static_cast<T**>(pointer) = static_cast<T*>(memory);
  }
  void add_piece(const Piece& piece);
  size_t reserve(size_t count, size_t size);  // adds to the total, returns by how much

  static constexpr int kMaxPieces = 40;
  Piece pieces_[kMaxPieces];
  int count_ = 0;
  size_t total_ = 0;
};

}  // namespace fusedrnn
