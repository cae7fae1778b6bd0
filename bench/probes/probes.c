/* What one core can do, for the ceilings of the tables: arithmetic from registers, reads from each
 * level of memory. Compiled by probes/__init__.py for the machine it runs on and called through
 * ctypes, in as many threads as a table has.
 *
 * Every probe returns a number that depends on all of its work, so that none can be left out.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__AVX512F__)
enum { kVectorBytes = 64 };
#elif defined(__AVX2__)
enum { kVectorBytes = 32 };
#else
enum { kVectorBytes = 16 };
#endif
typedef float Floats __attribute__((vector_size(kVectorBytes)));
typedef uint64_t Words __attribute__((vector_size(kVectorBytes)));

#if defined(__AVX512BF16__) || defined(__AMX_BF16__)
#include <immintrin.h>
#endif
#if defined(__AMX_BF16__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Accumulators: enough to cover the latency of two units. */
enum { kChains = 12 };
#define EACH_CHAIN(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

/* Floating-point operations of one round of a probe, 0 where this machine lacks the instruction. */
double probe_fma_operations(void) { return 2.0 * kChains * (kVectorBytes / sizeof(float)); }

double probe_bf16_operations(void) {
#if defined(__AVX512BF16__)
  return 4.0 * kChains * 16;
#else
  return 0;
#endif
}

double probe_amx_operations(void) {
#if defined(__AMX_BF16__)
  return 4.0 * 2 * 16 * 16 * 32;
#else
  return 0;
#endif
}

/* The empty assembly keeps each value in a register and the compiler from knowing it. */
#define IN_REGISTER(value) __asm__ volatile("" : "+x"(value))
#if defined(__aarch64__)
#undef IN_REGISTER
#define IN_REGISTER(value) __asm__ volatile("" : "+w"(value))
#endif

double probe_fma(long rounds) {
  Floats factor = {0}, summand = {0}, sum[kChains];
  factor += 0.999f;
  summand += 1e-3f;
  IN_REGISTER(factor);
  IN_REGISTER(summand);
#define START(k) Floats chain##k = summand;
  EACH_CHAIN(START)
#undef START
  for (long round = 0; round < rounds; ++round) {
#define ADVANCE(k)                        \
  chain##k = chain##k * factor + summand; \
  IN_REGISTER(chain##k);
    EACH_CHAIN(ADVANCE)
#undef ADVANCE
  }
#define KEEP(k) sum[k] = chain##k;
  EACH_CHAIN(KEEP)
#undef KEEP
  double total = 0;
  for (int k = 0; k < kChains; ++k) total += sum[k][0];
  return total;
}

double probe_bf16(long rounds) {
#if defined(__AVX512BF16__)
  __m512bh a = (__m512bh)_mm512_set1_epi16(0x3c00), b = (__m512bh)_mm512_set1_epi16(0x3f00);
  __m512 sum[kChains];
#define START(k) __m512 chain##k = _mm512_setzero_ps();
  EACH_CHAIN(START)
#undef START
  for (long round = 0; round < rounds; ++round) {
#define ADVANCE(k)                             \
  chain##k = _mm512_dpbf16_ps(chain##k, a, b); \
  IN_REGISTER(chain##k);
    EACH_CHAIN(ADVANCE)
#undef ADVANCE
  }
#define KEEP(k) sum[k] = chain##k;
  EACH_CHAIN(KEEP)
#undef KEEP
  double total = 0;
  for (int k = 0; k < kChains; ++k) total += sum[k][0];
  return total;
#else
  return (double)rounds * 0;
#endif
}

double probe_amx(long rounds) {
#if defined(__AMX_BF16__)
  enum { kRequestPermission = 0x1023, kTileData = 18 };
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) return -1;
  struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes_per_row[16];
    uint8_t rows[16];
  } configuration = {.palette = 1};
  for (int tile = 0; tile < 8; ++tile) {
    configuration.bytes_per_row[tile] = 64;
    configuration.rows[tile] = 16;
  }
  _tile_loadconfig(&configuration);
  float tile[16 * 16];
  memset(tile, 0, sizeof tile);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, tile, 64);
  _tile_loadd(5, tile, 64);
  _tile_loadd(6, tile, 64);
  _tile_loadd(7, tile, 64);
  for (long round = 0; round < rounds; ++round) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, tile, 64);
  _tile_release();
  return tile[0];
#else
  return (double)rounds * 0;
#endif
}

/* Memory that starts on a 2 MB page, on huge pages where asked for and given, written once. */
void* probe_allocate(size_t bytes, int huge) {
  const size_t page = (size_t)2 << 20;
  void* memory = NULL;
  if (posix_memalign(&memory, page, (bytes + page - 1) / page * page) != 0) return NULL;
#if defined(MADV_HUGEPAGE) && defined(MADV_NOHUGEPAGE)
  (void)madvise(memory, (bytes + page - 1) / page * page, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#else
  (void)huge;
#endif
  memset(memory, 1, bytes);
  return memory;
}

void probe_release(void* memory) { free(memory); }

/* Reads `bytes`, a multiple of 16 vectors, so many times. */
double probe_read(const void* memory, size_t bytes, long rounds) {
  enum { kUnroll = 16 };
  const Words* words = memory;
  const size_t count = bytes / sizeof(Words);
  Words sum[kUnroll];
  memset(sum, 0, sizeof sum);
  for (long round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < count; i += kUnroll) {
#pragma GCC unroll 16
      for (int k = 0; k < kUnroll; ++k) sum[k] ^= words[i + k];
    }
    __asm__ volatile("" ::: "memory");
  }
  double total = 0;
  for (int k = 0; k < kUnroll; ++k) total += (double)sum[k][0];
  return total;
}

/* Hands a number to the thread of the other side, 0 or 1, and waits for it to come back, so many
 * times. Returns the nanoseconds of a trip in the quickest row of 16: others were disturbed. */
double probe_core_latency(void* memory, int side, long trips) {
  uint32_t* const word = memory;
  struct timespec begin = {0}, end;
  double least = 1e18;
  for (long trip = 0; trip <= trips; ++trip) {
    if (trip % 16 == 0) {
      clock_gettime(CLOCK_MONOTONIC, &end);
      const double taken =
          1e9 * (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec);
      if (trip > 0 && taken < least) least = taken;
      begin = end;
      if (trip == trips) break;
    }
    uint32_t number;
    for (long spin = 1;; ++spin) {
      number = __atomic_load_n(word, __ATOMIC_ACQUIRE);
      if ((number & 1) == (uint32_t)side) break;
      if (spin % 1024 == 0) sched_yield(); /* both may be on one CPU */
    }
    __atomic_store_n(word, number + 1, __ATOMIC_RELEASE);
  }
  return least / 16;
}
