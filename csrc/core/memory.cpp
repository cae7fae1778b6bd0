#include "core/memory.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <new>
#include <type_traits>
#include <utility>

#include "core/error.h"

namespace fusedrnn {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;

// The address sanitizer is to see the first byte behind what was asked for, and uses after a
// release: so with it nothing is rounded up or kept.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// Below this each thread keeps its own.
constexpr size_t kCacheThreshold = kSanitized ? SIZE_MAX : size_t{64} << 10;

// Of blocks below kCacheThreshold the last few of each size that a thread has released: the C
// library searches its heap for aligned memory, which takes longer than a small call's products.
// Without a destructor, so that it can be used until the thread's very end.
class SmallBlocks {
 public:
  // Sizes are multiples of 64 bytes, or of a quarter of the power of two below them.
  static size_t step(size_t bytes) {
    return bytes <= 4 * kAlignment ? kAlignment : std::bit_floor(bytes - 1) / 4;
  }
  void* take(size_t size) {
    List& list = lists_[index(size)];
    if (list.count == 0) {
      if (!begun_) begin();
      return nullptr;
    }
    room_ += size;
    return list.blocks[--list.count];
  }
  bool keep(void* block, size_t size) {
    List& list = lists_[index(size)];
    if (list.count == kEach || size > room_) return false;
    room_ -= size;
    list.blocks[list.count++] = block;
    return true;
  }

 private:
  static constexpr size_t kSizes = 36, kEach = 4;  // sizes up to kCacheThreshold
  static constexpr size_t kMost = size_t{256} << 10;
  struct List {
    void* blocks[kEach];
    size_t count;
  };

  void begin();
  void end();

  static size_t index(size_t size) {
    const size_t unit = step(size);
    return size / unit - 1 + 4 * static_cast<size_t>(std::countr_zero(unit / kAlignment));
  }

  List lists_[kSizes] = {};
  size_t room_ = 0;  // how much more may be kept
  bool begun_ = false;
};
static_assert(std::is_trivially_destructible_v<SmallBlocks>);

thread_local constinit SmallBlocks small_blocks;

// When the thread first allocates. One that only releases need not keep anything, and may do so
// when it is too late to have a destructor called.
void SmallBlocks::begin() {
  struct AtEnd {
    ~AtEnd() { small_blocks.end(); }
  };
  thread_local const AtEnd at_end;
  begun_ = true;
  room_ = kMost;
}

// Others' destructors may follow; what they release is not kept, and nothing begins again.
void SmallBlocks::end() {
  room_ = 0;
  for (List& list : lists_) {
    while (list.count > 0) aligned_release(list.blocks[--list.count]);
  }
}

size_t round_up(size_t bytes, size_t unit) {
  if (bytes > SIZE_MAX - unit) throw OutOfMemory();
  return (bytes + unit - 1) / unit * unit;
}

size_t allocated_size(size_t bytes) {
  if (kSanitized) return std::max(bytes, size_t{1});
  if (bytes >= kHugeThreshold) return round_up(bytes, kHugePage);
  const size_t step = bytes > kCacheThreshold ? kAlignment : SmallBlocks::step(bytes);
  return round_up(bytes < 1 ? 1 : bytes, step);
}

constexpr size_t kMostEntries = 1024;

// Whether the system took the advice that it may have these pages when it needs them. Until it
// takes them they are as good as before, and writing to one keeps it.
bool lend_to_system([[maybe_unused]] void* data, [[maybe_unused]] size_t bytes) {
#ifdef MADV_FREE
  return bytes >= kHugeThreshold && madvise(data, bytes, MADV_FREE) == 0;
#else
  return false;
#endif
}

}  // namespace

void* aligned_allocate(size_t bytes) {
  const size_t size = allocated_size(bytes);
  const size_t alignment = size >= kHugeThreshold ? kHugePage : kAlignment;
  void* block = nullptr;
  if (posix_memalign(&block, alignment, size) != 0) throw OutOfMemory(bytes);
#ifdef MADV_HUGEPAGE
  // Only advice; without huge pages the block is as good.
  if (size >= kHugeThreshold) madvise(block, size, MADV_HUGEPAGE);
#endif
  return block;
}

void aligned_release(void* block) noexcept { std::free(block); }

// --- released memory, kept ---

BlockCache::BlockCache(const CacheLimits& limits) : limits_(limits) {
  entries_.reserve(kMostEntries);  // nothing is allocated when memory is released
}

BlockCache::~BlockCache() { clear(); }

void* BlockCache::acquire(size_t* bytes) {
  void* data = take(bytes);
  if (data == nullptr) data = allocate(*bytes);
  in_use_ += *bytes;
  note_use();
  return data;
}

void BlockCache::release(void* data, size_t bytes) noexcept {
  in_use_ -= bytes;
  if (!keep(data, bytes)) aligned_release(data);
}

// New memory, for which what is kept makes room if there is no other.
void* BlockCache::allocate(size_t bytes) {
  try {
    return aligned_allocate(bytes);
  } catch (const std::bad_alloc&) {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock() || entries_.empty()) throw;
    while (!entries_.empty()) drop_oldest();
  }
  return aligned_allocate(bytes);
}

size_t BlockCache::held() {
  const std::lock_guard lock(mutex_);
  return total_;
}

size_t BlockCache::clear() {
  const std::lock_guard lock(mutex_);
  const size_t held = total_;
  while (!entries_.empty()) drop_oldest();
  peak_ = recent_peak_ = 0;
  return held;
}

// The best fit, if there is one that is not much larger.
void* BlockCache::take(size_t* bytes) {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return nullptr;
  size_t best = entries_.size();
  for (size_t i = 0; i < entries_.size(); ++i) {
    const size_t size = entries_[i].size;
    if (size < *bytes || size > *bytes + *bytes / 2 + 4096) continue;
    if (best == entries_.size() || size < entries_[best].size) best = i;
  }
  if (best == entries_.size()) return nullptr;
  *bytes = entries_[best].size;
  return remove(best);
}

bool BlockCache::keep(void* data, size_t size) {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return false;
  const size_t most = allowed();
  if (size > most) return false;
  const bool firm = !lend_to_system(data, size);
  if (firm) {
    if (size > limits_.always) return false;
    while (firm_ + size > limits_.always) drop_oldest_firm();
  }
  while (total_ + size > most || entries_.size() == kMostEntries) drop_oldest();
  entries_.push_back({data, size, firm});
  total_ += size;
  firm_ += firm ? size : 0;
  return true;
}

void BlockCache::note_use() {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return;
  const size_t in_use = in_use_;
  if (++allocations_ == limits_.window) {
    allocations_ = 0;
    peak_ = recent_peak_;
    recent_peak_ = 0;
  }
  recent_peak_ = std::max(recent_peak_, in_use);
  const size_t most = allowed();
  while (total_ > most) drop_oldest();
}

// What may be kept beside what is in use.
size_t BlockCache::allowed() const {
  const size_t peak = std::max(peak_, recent_peak_), in_use = in_use_;
  const size_t idle = peak > in_use ? peak - in_use : 0;
  return std::max(limits_.always, std::min(limits_.most, idle));
}

void* BlockCache::remove(size_t index) {
  const Entry entry = entries_[index];
  entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(index));
  total_ -= entry.size;
  firm_ -= entry.firm ? entry.size : 0;
  return entry.data;
}

void BlockCache::drop_oldest_firm() {
  const auto is_firm = [](const Entry& entry) { return entry.firm; };
  const auto oldest = std::find_if(entries_.begin(), entries_.end(), is_firm);
  aligned_release(remove(static_cast<size_t>(oldest - entries_.begin())));
}

// --- that of the process ---

namespace {

constexpr size_t kAlwaysKept = size_t{32} << 20;
constexpr int64_t kWindow = 1024;

// A share of the machine's memory, or of the addresses that the process may have: pages that the
// system may take back still take these.
size_t most_kept() {
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0) {
    size_t most = static_cast<size_t>(pages) * static_cast<size_t>(page);
    rlimit addresses{};
    if (getrlimit(RLIMIT_AS, &addresses) == 0 && addresses.rlim_cur < most) {
      most = static_cast<size_t>(addresses.rlim_cur);
    }
    return most / 8;
  }
  return kAlwaysKept;
}

// Made while the library is loaded, not at first use, and so are the functions below: a fork can
// come in the middle of that, and copies a lock while it is held. Never destroyed: tapes may be
// released while the process exits.
BlockCache& process_cache = *new BlockCache({kAlwaysKept, most_kept(), kWindow});

// A fork waits until no thread is in the middle of the cache, so that the child's is whole. Where
// this is refused, a child does without what is kept if its parent was in the middle of it.
void hold_for_fork() { process_cache.before_fork(); }
void let_go_after_fork() { process_cache.after_fork(); }
[[maybe_unused]] const int fork_is_seen =
    pthread_atfork(hold_for_fork, let_go_after_fork, let_go_after_fork);

}  // namespace

Block::Block(size_t bytes) : bytes_(allocated_size(bytes)) {
  if (bytes_ >= kCacheThreshold) {
    data_ = process_cache.acquire(&bytes_);
  } else {
    data_ = allocate_small(bytes_);
  }
}

Block::~Block() {
  if (data_ == nullptr) return;
  if (bytes_ >= kCacheThreshold) {
    process_cache.release(data_, bytes_);
  } else {
    release_small(data_, bytes_);
  }
}

void* allocate_small(size_t bytes) {
  const size_t size = allocated_size(bytes);
  void* const kept = size < kCacheThreshold && !kSanitized ? small_blocks.take(size) : nullptr;
  return kept == nullptr ? aligned_allocate(size) : kept;
}

void release_small(void* memory, size_t bytes) noexcept {
  const size_t size = allocated_size(bytes);
  const bool may_keep = size < kCacheThreshold && !kSanitized;
  if (!may_keep || !small_blocks.keep(memory, size)) aligned_release(memory);
}

size_t release_memory() {
  const size_t released = process_cache.clear();
#if defined(__GLIBC__)
  malloc_trim(0);  // what smaller blocks have left
#endif
  return released;
}

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
