// What a cache of released blocks keeps, for how long, and that its memory can be used; and what
// threads keep of small ones.
#include <pthread.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <new>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "check.h"
#include "core/error.h"
#include "core/memory.h"

namespace {

using fusedrnn::BlockCache;

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kMost = 64 * kMiB;

// Whether the system takes pages back when it needs them; else nothing is kept beyond `always`.
bool system_lends() {
#if defined(__linux__) && defined(MADV_FREE)
  void* const block = fusedrnn::aligned_allocate(4 * kMiB);
  const bool lends = madvise(block, 4 * kMiB, MADV_FREE) == 0;
  fusedrnn::aligned_release(block);
  return lends;
#else
  return false;
#endif
}
const bool kLends = system_lends();

struct Block {
  void* data;
  size_t bytes;
};

Block acquire(BlockCache& cache, size_t bytes) {
  Block block{nullptr, bytes};
  block.data = cache.acquire(&block.bytes);
  CHECK(block.bytes >= bytes);
  std::memset(block.data, 0x5a, block.bytes);
  return block;
}

void release(BlockCache& cache, const Block& block) { cache.release(block.data, block.bytes); }

// One after the other, so that each is in use alone.
void pass_through(BlockCache& cache, size_t bytes, int times) {
  for (int i = 0; i < times; ++i) release(cache, acquire(cache, bytes));
}

void test_blocks_come_again() {
  BlockCache cache({16 * kMiB, kMost, 1000});
  const Block first = acquire(cache, 3 * kMiB);
  release(cache, first);
  CHECK_EQUAL(cache.held(), 3 * kMiB);
  CHECK(acquire(cache, 2 * kMiB + 1).data == first.data);  // not much larger
  CHECK_EQUAL(cache.held(), size_t{0});
  release(cache, first);
  const Block small = acquire(cache, kMiB);  // which the first is much larger than
  CHECK(small.data != first.data);
  release(cache, small);
  CHECK_EQUAL(cache.held(), 4 * kMiB);
}

// Beyond what is always kept as much as was in use at the same time.
void test_large_blocks_are_kept_as_far_as_they_were_in_use() {
  BlockCache cache({8 * kMiB, kMost, 1000});
  std::vector<Block> blocks;
  for (int i = 0; i < 4; ++i) blocks.push_back(acquire(cache, 6 * kMiB));
  for (const Block& block : blocks) release(cache, block);
  CHECK_EQUAL(cache.held(), kLends ? 24 * kMiB : 6 * kMiB);
  // Other sizes take the place of these: with what is kept they stay below that peak.
  const Block other = acquire(cache, 12 * kMiB);
  CHECK(cache.held() <= 12 * kMiB);
  release(cache, other);
  CHECK(cache.held() <= 24 * kMiB);
}

void test_the_most() {
  BlockCache cache({8 * kMiB, kMost, 1000});
  std::vector<Block> blocks;
  for (int i = 0; i < 20; ++i) blocks.push_back(acquire(cache, 6 * kMiB));
  for (const Block& block : blocks) {
    release(cache, block);
    CHECK(cache.held() <= kMost);
  }
  CHECK(!kLends || cache.held() > kMost - 6 * kMiB);
  const Block huge = acquire(cache, 2 * kMost);
  release(cache, huge);
  CHECK(cache.held() <= kMost);
}

void test_what_is_not_used_any_more_goes() {
  BlockCache cache({8 * kMiB, kMost, 100});
  std::vector<Block> blocks;
  for (int i = 0; i < 4; ++i) blocks.push_back(acquire(cache, 6 * kMiB));
  for (const Block& block : blocks) release(cache, block);
  pass_through(cache, kMiB, 50);
  CHECK(!kLends || cache.held() >= 18 * kMiB);  // one had to make room
  pass_through(cache, kMiB, 250);
  CHECK(cache.held() <= 8 * kMiB);
}

void test_all_is_given_back() {
  BlockCache cache({16 * kMiB, kMost, 1000});
  const Block used = acquire(cache, 2 * kMiB);
  pass_through(cache, 3 * kMiB, 1);
  CHECK_EQUAL(cache.clear(), 3 * kMiB);
  CHECK_EQUAL(cache.held(), size_t{0});
  CHECK_EQUAL(cache.clear(), size_t{0});
  release(cache, used);  // is kept again
  CHECK_EQUAL(cache.held(), 2 * kMiB);
}

// Below the size that is worth lending, blocks push the oldest out.
void test_small_blocks_among_themselves() {
  BlockCache cache({2 * kMiB, kMost, 1000});
  std::vector<Block> blocks;
  for (int i = 0; i < 8; ++i) blocks.push_back(acquire(cache, kMiB));
  for (const Block& block : blocks) release(cache, block);
  CHECK_EQUAL(cache.held(), 2 * kMiB);
  for (int i = 6; i < 8; ++i) {
    const void* const data = acquire(cache, kMiB).data;
    CHECK(data == blocks[6].data || data == blocks[7].data);
  }
}

// Bytes of the process that the system may take; 0 where it does not say.
size_t lent() {
  size_t kilobytes = 0;
#if defined(__linux__)
  std::ifstream file("/proc/self/smaps_rollup");
  for (std::string word; file >> word;) {
    if (word == "LazyFree:") file >> kilobytes;
  }
#endif
  return kilobytes << 10;
}

// Whether the system counts what it was lent: qemu takes the advice and may do nothing.
bool system_counts() {
#if defined(__linux__) && defined(MADV_FREE)
  void* const block = fusedrnn::aligned_allocate(4 * kMiB);
  std::memset(block, 1, 4 * kMiB);
  const size_t before = lent();
  madvise(block, 4 * kMiB, MADV_FREE);
  const bool counts = lent() == before + 4 * kMiB;
  fusedrnn::aligned_release(block);
  return counts;
#else
  return false;
#endif
}

void test_large_blocks_are_lent_at_once() {
  BlockCache cache({16 * kMiB, kMost, 1000});
  const size_t before = lent();
  release(cache, acquire(cache, 3 * kMiB));
  CHECK_EQUAL(lent(), before);
  const Block large = acquire(cache, 6 * kMiB);
  release(cache, large);
  CHECK_EQUAL(lent(), before + (system_counts() ? 6 * kMiB : 0));
  const Block again = acquire(cache, 6 * kMiB);  // is written to
  CHECK(again.data == large.data);
  CHECK_EQUAL(lent(), before);
  release(cache, again);
}

// Large ones are lent and need no room of that for small ones, which cannot be.
void test_small_blocks_among_large_ones() {
  BlockCache cache({16 * kMiB, kMost, 1000});
  const auto step = [&] {
    std::vector<Block> blocks;
    for (int i = 0; i < 4; ++i) {
      blocks.push_back(acquire(cache, 6 * kMiB));
      blocks.push_back(acquire(cache, 3 * kMiB));
    }
    for (const Block& block : blocks) release(cache, block);
  };
  for (int i = 0; i < 3; ++i) {
    step();
    CHECK(kLends ? cache.held() == 36 * kMiB : cache.held() <= 16 * kMiB);
  }
}

void test_many_small_blocks() {
  BlockCache cache({kMost, kMost, 10000});
  std::vector<Block> blocks;
  for (int i = 0; i < 1100; ++i) blocks.push_back(acquire(cache, kMiB / 32));
  for (const Block& block : blocks) release(cache, block);
  CHECK(cache.held() > 0 && cache.held() < 1100 * kMiB / 32);
}

template <class Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const std::bad_alloc& error) {
    return fusedrnn::message_of(error);
  }
  return "nothing thrown";
}

// What is beyond any memory, and what is beyond all numbers.
void test_messages() {
  constexpr size_t kHuge = size_t{1} << 60;
  const std::string huge = "out of memory: cannot allocate 1152921504606846976 bytes";
  const std::string beyond = "out of memory: the problem is too large to address";
  CHECK_EQUAL(message_of([] { fusedrnn::aligned_allocate(kHuge); }), huge);
  CHECK_EQUAL(message_of([] { fusedrnn::Block block(kHuge); }), huge);
  CHECK_EQUAL(message_of([] { fusedrnn::Block block(SIZE_MAX - 1); }), beyond);
  float* numbers = nullptr;
  CHECK_EQUAL(message_of([&] { fusedrnn::Arena().add(numbers, SIZE_MAX / 2, 4); }), beyond);
  CHECK_EQUAL(message_of([&] {
                fusedrnn::Arena arena;
                for (int i = 0; i < 4; ++i) arena.add(numbers, size_t{1} << 62, 1);
              }),
              beyond);
  CHECK_EQUAL(message_of([] { throw std::bad_alloc(); }), "out of memory");
}

void test_threads() {
  BlockCache cache({8 * kMiB, kMost, 64});
  std::vector<std::thread> threads;
  for (unsigned seed = 1; seed <= 4; ++seed) {
    threads.emplace_back([&cache, seed] {
      unsigned random = seed;
      std::vector<Block> mine;
      for (int i = 0; i < 300; ++i) {
        random = random * 1664525 + 1013904223;
        if (mine.size() < 3 && random >> 31 != 0) {
          mine.push_back(acquire(cache, ((random >> 20) % 8 + 1) * kMiB / 2));
          *static_cast<unsigned*>(mine.back().data) = seed;
        } else if (!mine.empty()) {
          CHECK_EQUAL(*static_cast<unsigned*>(mine.back().data), seed);
          release(cache, mine.back());
          mine.pop_back();
        }
      }
      for (const Block& block : mine) release(cache, block);
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(cache.held() <= kMost);
}

// Bytes of the C library's heap in use; 0 where it does not say.
size_t heap_in_use() {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
#else
  return 0;
#endif
}

// Whether it counts: sanitizers have heaps of their own.
bool heap_counts() {
  const size_t before = heap_in_use();
  void* const block = fusedrnn::aligned_allocate(kMiB / 32);
  const bool counts = heap_in_use() >= before + kMiB / 32;
  fusedrnn::aligned_release(block);
  return counts;
}

constexpr size_t kSmall = kMiB / 32;

// How much of the heap is in use after a hundred threads that each run `body` and have come to
// their ends, beyond what was before. The first one is to make what stays.
template <class Body>
size_t left_by_threads(Body body) {
  std::thread(body).join();
  const size_t before = heap_in_use();
  for (int i = 0; i < 100; ++i) std::thread(body).join();
  const size_t after = heap_in_use();
  return after > before ? after - before : 0;
}

void test_threads_keep_small_blocks_until_they_end() {
  CHECK(left_by_threads([] {
          void* const block = fusedrnn::allocate_small(kSmall);
          const size_t used = heap_in_use();
          fusedrnn::release_small(block, kSmall);
          CHECK_EQUAL(heap_in_use(), used);  // kept
          void* const again = fusedrnn::allocate_small(kSmall);
          CHECK(!heap_counts() || again == block);
          fusedrnn::release_small(again, kSmall);
        }) < kMiB);
}

pthread_key_t released_at_end;
void release_at_end(void* block) { fusedrnn::release_small(block, kSmall); }

// Keys' destructors come after those of all that is thread_local.
void test_the_last_that_a_thread_releases_is_not_kept() {
  CHECK_EQUAL(pthread_key_create(&released_at_end, release_at_end), 0);
  CHECK(left_by_threads([] {
          fusedrnn::release_small(fusedrnn::allocate_small(64), 64);
          pthread_setspecific(released_at_end, fusedrnn::allocate_small(kSmall));
        }) < kMiB);
  CHECK(left_by_threads(
            [] { pthread_setspecific(released_at_end, fusedrnn::allocate_small(kSmall)); }) < kMiB);
  // A thread that has none of its own.
  std::vector<void*> blocks;
  for (int i = 0; i < 101; ++i) blocks.push_back(fusedrnn::allocate_small(kSmall));
  const size_t before = heap_in_use();
  for (void* const block : blocks) {
    std::thread([block] { pthread_setspecific(released_at_end, block); }).join();
  }
  CHECK(!heap_counts() || heap_in_use() + 100 * kSmall < before + kMiB);
  pthread_key_delete(released_at_end);
}

// Releases at a thread's end what it was given, and uses what is kept once more.
struct Holder {
  void* block = nullptr;
  ~Holder() {
    if (block == nullptr) return;
    fusedrnn::release_small(block, kSmall);
    fusedrnn::release_small(fusedrnn::allocate_small(kSmall), kSmall);
  }
};
thread_local Holder holder;

// Destructors of what is thread_local come in the opposite order of the constructors.
void test_what_is_older_than_the_small_blocks_may_release() {
  CHECK(left_by_threads([] {
          holder.block = nullptr;  // makes it
          holder.block = fusedrnn::allocate_small(kSmall);
        }) < kMiB);
}

}  // namespace

int main() {
  test_large_blocks_are_lent_at_once();  // before others, what of whose memory is still lent
  test_blocks_come_again();
  test_large_blocks_are_kept_as_far_as_they_were_in_use();
  test_the_most();
  test_what_is_not_used_any_more_goes();
  test_all_is_given_back();
  test_small_blocks_among_themselves();
  test_small_blocks_among_large_ones();
  test_many_small_blocks();
  test_messages();
  test_threads();
  test_threads_keep_small_blocks_until_they_end();
  test_the_last_that_a_thread_releases_is_not_kept();
  test_what_is_older_than_the_small_blocks_may_release();
  return check::result();
}
