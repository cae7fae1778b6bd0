#include "core/memory.h"

#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

#include "core/block_cache.h"

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
  if (bytes > SIZE_MAX - unit) throw std::bad_alloc();
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

BlockCache& cache() {
  // Never destroyed: tapes may be released while the process exits.
  static auto* const instance = new BlockCache({kAlwaysKept, most_kept(), kWindow});
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

void Arena::add_piece(const Piece& piece) {
  if (count_ == kMaxPieces) throw std::bad_alloc();
  pieces_[count_++] = piece;
}

size_t Arena::reserve(size_t count, size_t size) {
  size_t bytes = 0;
  if (__builtin_mul_overflow(count, size, &bytes)) throw std::bad_alloc();
  bytes = round_up(bytes, kAlignment);
  if (__builtin_add_overflow(total_, bytes, &total_)) throw std::bad_alloc();
  return bytes;
}

void Arena::point_into(void* memory) const {
  for (int i = 0; i < count_; ++i) {
    const Piece& piece = pieces_[i];
    piece.set(piece.pointer, piece.empty ? nullptr : static_cast<char*>(memory) + piece.offset);
  }
}

}  // namespace fusedrnn
