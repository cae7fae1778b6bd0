// Released memory, kept for the next call: a page that the system hands out anew costs more than
// most kernels spend on it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

namespace fusedrnn {

// How much a cache keeps. Up to `always` bytes it holds on to. Beyond these it keeps what was in
// use at the same time of late (within the last one or two `window`s of allocations), up to `most`,
// and lets the system take the pages back when it is short of memory. Blocks below 4 MiB are not
// worth lending: of these it keeps `always`.
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

  // Around a fork, in the thread that forks: no other is in the middle of the cache then. The
  // second in both processes.
  void before_fork() { mutex_.lock(); }
  void after_fork() { mutex_.unlock(); }

 private:
  class Dropped;
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
  void drop(size_t index);
  void drop_oldest(Dropped& dropped);
  void loosen(Dropped& dropped);

  const CacheLimits limits_;
  std::atomic<size_t> in_use_{0};
  std::mutex mutex_;
  std::vector<Entry> entries_;  // the oldest first
  size_t total_ = 0, firm_ = 0;
  size_t peak_ = 0, recent_peak_ = 0;  // of what is in use: of the last window, of this one
  int64_t allocations_ = 0;            // of this window
};

}  // namespace fusedrnn
