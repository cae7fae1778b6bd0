#include "core/memory.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <utility>

#include "core/block_cache.h"
#include "core/error.h"

#if defined(__unix__) || defined(__APPLE__)
#define FUSEDRNN_POSIX_FORK 1
#include <pthread.h>
#endif

#if defined(__linux__)
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#endif

namespace fusedrnn {

namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;

// Below this the C library's own lists are as good as ours.
constexpr size_t kCacheThreshold = size_t{64} << 10;

size_t round_up(size_t bytes, size_t unit) {
  if (bytes > SIZE_MAX - unit) throw OutOfMemory();
  return (bytes + unit - 1) / unit * unit;
}

size_t allocated_size(size_t bytes) {
  if (bytes >= kHugeThreshold) return round_up(bytes, kHugePage);
  return round_up(bytes < 1 ? 1 : bytes, kAlignment);
}

constexpr size_t kAlwaysKept = size_t{128} << 20;
constexpr int64_t kWindow = 1024;

// A share of the machine's memory, or of the addresses that the process may have: pages that the
// system may take back still take these.
size_t most_kept() {
#if defined(__linux__)
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0) {
    size_t most = static_cast<size_t>(pages) * static_cast<size_t>(page);
    rlimit addresses{};
    if (getrlimit(RLIMIT_AS, &addresses) == 0 && addresses.rlim_cur < most) {
      most = static_cast<size_t>(addresses.rlim_cur);
    }
    return most / 8;
  }
#endif
  return kAlwaysKept;
}

// Made by the first block, and never destroyed: tapes may be released while the process exits. Not
// a static inside a function, which is a lock that a fork can copy while it is held.
std::atomic<BlockCache*> process_cache{nullptr};

BlockCache& cache() {
  BlockCache* known = process_cache.load(std::memory_order_acquire);
  if (known != nullptr) return *known;
  auto fresh = std::make_unique<BlockCache>(CacheLimits{kAlwaysKept, most_kept(), kWindow});
  if (process_cache.compare_exchange_strong(known, fresh.get(), std::memory_order_acq_rel)) {
    known = fresh.release();
  }
  return *known;
}

#ifdef FUSEDRNN_POSIX_FORK
// A fork waits until no thread is in the middle of the cache, so that the child's is whole. The
// cache is made for it where there is none, or another thread could make and enter it meanwhile.
thread_local BlockCache* held_for_fork = nullptr;

void hold_for_fork() {
  try {
    cache().before_fork();
    held_for_fork = &cache();
  } catch (const std::bad_alloc&) {
    // The child does without what is kept if it has to.
  }
}

void let_go_after_fork() {
  if (held_for_fork != nullptr) held_for_fork->after_fork();
  held_for_fork = nullptr;
}

// While the library is loaded, not at first use: a fork can come in the middle of that. Where it is
// refused, a child does without what is kept if its parent was in the middle of the cache.
[[maybe_unused]] const int fork_is_seen =
    pthread_atfork(hold_for_fork, let_go_after_fork, let_go_after_fork);
#endif

}  // namespace

void* aligned_allocate(size_t bytes) {
  const size_t size = allocated_size(bytes);
  const size_t alignment = size >= kHugeThreshold ? kHugePage : kAlignment;
  void* block = std::aligned_alloc(alignment, size);
  if (block == nullptr) throw OutOfMemory(bytes);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  // Only advice; without huge pages the block is as good.
  if (size >= kHugeThreshold) madvise(block, size, MADV_HUGEPAGE);
#endif
  return block;
}

void aligned_release(void* block) noexcept { std::free(block); }

Block::Block(size_t bytes) : bytes_(allocated_size(bytes)) {
  data_ = bytes_ >= kCacheThreshold ? cache().acquire(&bytes_) : aligned_allocate(bytes_);
}

Block::~Block() {
  if (data_ == nullptr) return;
  if (bytes_ >= kCacheThreshold) {
    cache().release(data_, bytes_);
  } else {
    aligned_release(data_);
  }
}

Block::Block(Block&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

Block& Block::operator=(Block&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

size_t Arena::reserve(size_t count, size_t size) {
  size_t bytes = 0;
  if (__builtin_mul_overflow(count, size, &bytes)) throw OutOfMemory();
  bytes = round_up(bytes, kAlignment);
  if (__builtin_add_overflow(total_, bytes, &total_)) throw OutOfMemory();
  return bytes;
}

}  // namespace fusedrnn
