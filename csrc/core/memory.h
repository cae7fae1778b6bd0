// Memory for results, tapes and scratch.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

namespace fusedrnn {

// At least this much has to be wanted before whole huge pages are worth their rounding.
constexpr size_t kHugeThreshold = size_t{4} << 20;

// 64-byte aligned, uninitialised; large blocks lie on huge pages where the system has them. A size
// of zero gives a valid pointer. Throws OutOfMemory.
void* aligned_allocate(size_t bytes);
void aligned_release(void* block) noexcept;

// How much a cache keeps: what was in use at the same time of late (within the last one or two
// `window`s of allocations), up to `most`, or `always`, if that is more. The system may take the
// pages of blocks of 4 MiB and more whenever it wants them; smaller ones are not worth lending, and
// of these the cache keeps `always`.
struct CacheLimits {
  size_t always, most;
  int64_t window;
};

// Memory by aligned_allocate(), of 64 KiB and more. Any thread may call; one that finds the cache
// busy does without it.
class BlockCache {
 public:
  explicit BlockCache(const CacheLimits& limits);
  ~BlockCache();
  BlockCache(const BlockCache&) = delete;
  BlockCache& operator=(const BlockCache&) = delete;

  // At least `*bytes`, which becomes what it is; throws OutOfMemory. The content is undefined.
  void* acquire(size_t* bytes);
  // Takes back what acquire() gave, of the size that it gave.
  void release(void* data, size_t bytes) noexcept;

  // Bytes that are kept now.
  size_t held();
  // Gives all of them back to the system, and forgets what was in use of late; returns how many.
  size_t clear();

  // Around a fork, in the thread that forks: no other is in the middle of the cache then. The
  // second in both processes.
  void before_fork() { mutex_.lock(); }
  void after_fork() { mutex_.unlock(); }

 private:
  struct Entry {
    void* data;
    size_t size;
    bool firm;  // false: the system may take its pages
  };

  void* take(size_t* bytes);
  void* allocate(size_t bytes);
  bool keep(void* data, size_t size);
  void note_use();
  size_t allowed() const;
  void* remove(size_t index);
  void drop_oldest() { aligned_release(remove(0)); }
  void drop_oldest_firm();

  const CacheLimits limits_;
  std::atomic<size_t> in_use_{0};
  std::mutex mutex_;
  std::vector<Entry> entries_;  // the oldest first
  size_t total_ = 0, firm_ = 0;
  size_t peak_ = 0, recent_peak_ = 0;  // of what is in use: of the last window, of this one
  int64_t allocations_ = 0;            // of this window
};

// The memory of a result, a tape or a call's scratch: from a cache that the process has, below
// 64 KiB from what the thread has released of late.
class Block {
 public:
  Block() = default;
  explicit Block(size_t bytes);
  ~Block();
  Block(Block&& other) noexcept { *this = std::move(other); }
  Block& operator=(Block&& other) noexcept;
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;  // what was allocated, at least what was asked for
};

// The same for memory of a few KiB that comes and goes with every call, which the C library
// searches its heap for.
void* allocate_small(size_t bytes);
void release_small(void* memory, size_t bytes) noexcept;

// Of what a call keeps in containers of the standard library.
template <class T>
struct SmallAllocator {
  using value_type = T;

  SmallAllocator() = default;
  template <class Other>
  SmallAllocator(const SmallAllocator<Other>&) {}  // containers make theirs of it

  T* allocate(size_t count) { return static_cast<T*>(allocate_small(count * sizeof(T))); }
  void deallocate(T* memory, size_t count) noexcept { release_small(memory, count * sizeof(T)); }
  bool operator==(const SmallAllocator&) const { return true; }
};
template <class T>
using SmallVector = std::vector<T, SmallAllocator<T>>;

// Gives what the process's cache keeps back to the system; returns how many bytes. Threads keep
// their small blocks, at most 256 KiB each.
size_t release_memory();

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
