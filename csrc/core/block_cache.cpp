#include "core/block_cache.h"

#include <algorithm>
#include <new>

#include "core/memory.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fusedrnn {
namespace {

constexpr size_t kMostEntries = 1024;

// Whether the system took the advice that it may have these pages when it needs them. Until it
// takes them they are as good as before, and writing to one keeps it.
bool lend_to_system([[maybe_unused]] void* data, [[maybe_unused]] size_t bytes) {
#if defined(__linux__) && defined(MADV_FREE)
  return bytes >= kHugeThreshold && madvise(data, bytes, MADV_FREE) == 0;
#else
  return false;
#endif
}

}  // namespace

// What has left a cache. Declared before the lock, so that others need not wait while the system
// takes it back.
class BlockCache::Dropped {
 public:
  Dropped() = default;
  ~Dropped() {
    for (size_t i = 0; i < count_; ++i) aligned_release(blocks_[i]);
  }
  Dropped(const Dropped&) = delete;
  Dropped& operator=(const Dropped&) = delete;
  void add(void* data) { blocks_[count_++] = data; }

 private:
  void* blocks_[kMostEntries];
  size_t count_ = 0;
};

BlockCache::BlockCache(const CacheLimits& limits) : limits_(limits) {
  entries_.reserve(kMostEntries);  // nothing is allocated when memory is released
}

BlockCache::~BlockCache() {
  Dropped dropped;
  while (!entries_.empty()) drop_oldest(dropped);
}

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
    Dropped dropped;
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock() || entries_.empty()) throw;
    while (!entries_.empty()) drop_oldest(dropped);
  }
  return aligned_allocate(bytes);
}

size_t BlockCache::held() {
  const std::lock_guard lock(mutex_);
  return total_;
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
  void* const data = entries_[best].data;
  *bytes = entries_[best].size;
  drop(best);
  return data;
}

bool BlockCache::keep(void* data, size_t size) {
  Dropped dropped;
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return false;
  const size_t most = allowed();
  if (size > most) return false;
  bool firm = firm_ + size <= limits_.always;
  if (!firm && !lend_to_system(data, size)) {
    if (size > limits_.always) return false;
    while (firm_ + size > limits_.always) loosen(dropped);
    firm = true;
  }
  while (total_ + size > most || entries_.size() == kMostEntries) drop_oldest(dropped);
  entries_.push_back({data, size, firm});
  total_ += size;
  firm_ += firm ? size : 0;
  return true;
}

void BlockCache::note_use() {
  Dropped dropped;
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
  while (total_ > most) drop_oldest(dropped);
}

// What may be kept beside what is in use.
size_t BlockCache::allowed() const {
  const size_t peak = std::max(peak_, recent_peak_), in_use = in_use_;
  const size_t idle = peak > in_use ? peak - in_use : 0;
  return std::max(limits_.always, std::min(limits_.most, idle));
}

// Takes an entry out of the list.
void BlockCache::drop(size_t index) {
  const Entry entry = entries_[index];
  entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(index));
  total_ -= entry.size;
  firm_ -= entry.firm ? entry.size : 0;
}

void BlockCache::drop_oldest(Dropped& dropped) {
  dropped.add(entries_.front().data);
  drop(0);
}

// Makes less of what is held firmly: lends the oldest block that the system takes, or gives the
// oldest one back.
void BlockCache::loosen(Dropped& dropped) {
  size_t oldest = entries_.size();
  for (size_t i = 0; i < entries_.size(); ++i) {
    Entry& entry = entries_[i];
    if (!entry.firm) continue;
    if (lend_to_system(entry.data, entry.size)) {
      entry.firm = false;
      firm_ -= entry.size;
      return;
    }
    if (oldest == entries_.size()) oldest = i;
  }
  dropped.add(entries_[oldest].data);
  drop(oldest);
}

}  // namespace fusedrnn
