#include "core/memory.h"

#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fusedrnn {

namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;

// At least this much has to be wanted before whole huge pages are worth their rounding.
constexpr size_t kHugeThreshold = size_t{4} << 20;

// Below this the C library's own lists are as good as ours.
constexpr size_t kCacheThreshold = size_t{64} << 10;

size_t round_up(size_t bytes, size_t unit) {
  if (bytes > SIZE_MAX - unit) throw std::bad_alloc();
  return (bytes + unit - 1) / unit * unit;
}

size_t allocated_size(size_t bytes) {
  if (bytes >= kHugeThreshold) return round_up(bytes, kHugePage);
  return round_up(bytes < 1 ? 1 : bytes, kAlignment);
}

// Released blocks, for the next call.
class Cache {
 public:
  // A block of at least `bytes` that is not much larger, or null.
  void* take(size_t bytes, size_t* size) {
    // A thread that held the lock when the process forked never unlocks it in the child: there the
    // cache is simply not used.
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return nullptr;
    Entry* best = nullptr;
    for (Entry& entry : entries_) {
      if (entry.data == nullptr || entry.size < bytes || entry.size > bytes + bytes / 2 + 4096) {
        continue;
      }
      if (best == nullptr || entry.size < best->size) best = &entry;
    }
    if (best == nullptr) return nullptr;
    *size = best->size;
    total_ -= best->size;
    return std::exchange(best->data, nullptr);
  }

  bool put(void* data, size_t size) {
    if (size > kLimit) return false;
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return false;
    // The oldest go first, so that the sizes in use stay.
    for (int i = 0; i < kEntries; ++i, oldest_ = (oldest_ + 1) % kEntries) {
      Entry& entry = entries_[oldest_];
      const bool room = entry.data == nullptr && total_ + size <= kLimit;
      if (!room && entry.data != nullptr) {
        aligned_release(std::exchange(entry.data, nullptr));
        total_ -= entry.size;
      }
      if (total_ + size <= kLimit) {
        entry = {data, size};
        total_ += size;
        oldest_ = (oldest_ + 1) % kEntries;
        return true;
      }
    }
    return false;
  }

 private:
  struct Entry {
    void* data = nullptr;
    size_t size = 0;
  };
  static constexpr int kEntries = 64;
  static constexpr size_t kLimit = size_t{128} << 20;

  std::mutex mutex_;
  Entry entries_[kEntries];
  size_t total_ = 0;
  int oldest_ = 0;
};

Cache& cache() {
  // Never destroyed: tapes may be released while the process exits.
  static Cache* const instance = new Cache;
  return *instance;
}

}  // namespace

void* aligned_allocate(size_t bytes) {
  const size_t size = allocated_size(bytes);
  const size_t alignment = size >= kHugeThreshold ? kHugePage : kAlignment;
  void* block = std::aligned_alloc(alignment, size);
  if (block == nullptr) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  // Only advice; without huge pages the block is as good.
  if (size >= kHugeThreshold) madvise(block, size, MADV_HUGEPAGE);
#endif
  return block;
}

void aligned_release(void* block) noexcept { std::free(block); }

Block::Block(size_t bytes) : bytes_(allocated_size(bytes)) {
  if (bytes_ >= kCacheThreshold) data_ = cache().take(bytes_, &bytes_);
  if (data_ == nullptr) data_ = aligned_allocate(bytes_);
}

Block::~Block() {
  if (data_ == nullptr) return;
  if (bytes_ < kCacheThreshold || !cache().put(data_, bytes_)) aligned_release(data_);
}

Block::Block(Block&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

Block& Block::operator=(Block&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

int Arena::reserve(size_t count, size_t size) {
  size_t bytes = 0;
  if (pieces_ == kMaxPieces || __builtin_mul_overflow(count, size, &bytes)) throw std::bad_alloc();
  bytes = round_up(bytes, kAlignment);
  offsets_[pieces_] = total_;
  if (__builtin_add_overflow(total_, bytes, &total_)) throw std::bad_alloc();
  return pieces_++;
}

void* Arena::at(int piece) const { return static_cast<char*>(memory_) + offsets_[piece]; }

}  // namespace fusedrnn
