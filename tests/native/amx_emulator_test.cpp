// The emulated instructions of AMX against results worked out by hand, what they refuse, and the
// way of the real instructions to them.

#include "amx_emulator.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "check.h"

#define FUSEDRNN_ISA instructions
#include "cpu/isa/amx_bf16/tile_instructions.h"

namespace {

namespace unit = fusedrnn::cpu::instructions;
using unit::TileConfiguration;

constexpr int kSkipped = 77;

uint16_t bf16(float value) {  // of numbers that bfloat16 has
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);
}

// tmm0 for sums, tmm1 times tmm2.
TileConfiguration shapes(int rows, int groups, int columns) {
  TileConfiguration configuration;
  const auto set = [&](int tile, int height, int width) {
    configuration.rows[tile] = static_cast<uint8_t>(height);
    configuration.row_bytes[tile] = static_cast<uint16_t>(4 * width);
  };
  set(0, rows, columns);
  set(1, rows, groups);
  set(2, groups, columns);
  return configuration;
}

// c + sum over k of a[k] * b[k], as one instruction sums it.
float dot(float c, const std::vector<float>& a, const std::vector<float>& b) {
  std::vector<uint16_t> row(32), column(32);
  for (size_t k = 0; k < a.size(); ++k) {
    row[k] = bf16(a[k]);
    column[k] = bf16(b[k]);
  }
  const TileConfiguration configuration = shapes(1, 16, 1);
  amx_emulator::ldtilecfg(&configuration);
  amx_emulator::tileloadd(0, &c, 0);
  amx_emulator::tileloadd(1, row.data(), 0);
  amx_emulator::tileloadd(2, column.data(), 4);
  amx_emulator::tdpbf16ps(0, 1, 2);
  amx_emulator::tilestored(0, &c, 0);
  amx_emulator::tilerelease();
  return c;
}

void test_order_of_sums() {
  constexpr float kBig = 0x1p24f;  // the first whole number that has no successor in float32
  // Numbers of even and of odd k have a sum each, from 0, in order of k.
  CHECK_EQUAL(dot(0, {kBig, 0, 1, 0, -kBig}, {1, 1, 1, 1, 1}), 0.0f);
  CHECK_EQUAL(dot(0, {kBig, 1, -kBig, 0}, {1, 1, 1, 1}), 1.0f);
  CHECK_EQUAL(dot(0, {0, kBig, 0, 1, 1, -kBig}, {1, 1, 1, 1, 1, 1}), 1.0f);
  // They meet, and then what was there before.
  CHECK_EQUAL(dot(kBig, {1, 1}, {1, 1}), kBig + 2);
  CHECK_EQUAL(dot(1, {kBig, 0, -kBig}, {1, 0, 1}), 1.0f);
  CHECK_EQUAL(dot(1, {kBig, -kBig}, {1, 1}), 1.0f);
  // To nearest, ties to even, whatever the caller rounds to.
  CHECK_EQUAL(dot(kBig, {3}, {1}), kBig + 4);
  CHECK_EQUAL(dot(kBig, {0x1.02p-1f}, {2}), kBig + 2);
}

void test_numbers_at_the_ends() {
  constexpr float kDenormal = 0x1p-130f, kSmallest = 0x1p-126f;
  CHECK_EQUAL(dot(0, {kDenormal}, {0x1p20f}), 0.0f);         // an operand
  CHECK_EQUAL(dot(0, {0x1p-70f}, {0x1p-70f}), 0.0f);         // a product
  CHECK_EQUAL(dot(kDenormal, {kSmallest}, {1}), kSmallest);  // a sum before
  CHECK_EQUAL(dot(0x1.8p-126f, {-kSmallest}, {1}), 0.0f);    // a sum after
  CHECK_EQUAL(dot(0x1p-149f, {1}, {0}), 0.0f);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  CHECK_EQUAL(dot(0, {kInfinity}, {-1}), -kInfinity);
  CHECK(std::isnan(dot(0, {kInfinity}, {0})));
  CHECK(std::isnan(dot(0, {kInfinity, kInfinity}, {1, -1})));
  CHECK_EQUAL(dot(0, {0x1p100f}, {0x1p100f}), kInfinity);
}

bool cpu_has_amx() {
  constexpr unsigned kAmxTile = 1u << 24;  // CPUID, leaf 7
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kAmxTile) != 0;
}

// By the instructions. A CPU that has AMX runs these two where the registers themselves are not
// granted, which is what a trap into the others needs.
void configure(const TileConfiguration& configuration) {
  unit::configure_tiles(configuration);
  if (cpu_has_amx()) amx_emulator::ldtilecfg(&configuration);
}
void release() {
  unit::release_tiles();
  if (cpu_has_amx()) amx_emulator::tilerelease();
}

int number(int i) { return i * 37 % 23 - 11; }

// Small whole numbers, exact in any order, in every shape; the instructions themselves where
// `trap`.
void test_shapes(bool trap) {
  for (int rows = 1; rows <= 16; rows += 5) {
    for (int groups = 1; groups <= 16; groups += 3) {
      for (int columns = 1; columns <= 16; columns += 5) {
        uint16_t a[16][40], b[16][36];
        float sums[16][20] = {};
        const auto at = [&](int k, int n) { return number(7 + k * 16 + n); };
        for (int m = 0; m < 16; ++m) {
          for (int k = 0; k < 32; ++k) a[m][k] = bf16(static_cast<float>(number(m * 32 + k)));
        }
        for (int k = 0; k < 32; ++k) {
          for (int n = 0; n < 16; ++n) b[k / 2][2 * n + k % 2] = bf16(static_cast<float>(at(k, n)));
        }
        for (auto& row : sums) {
          for (float& sum : row) sum = -1;
        }
        float begin[16];
        for (int n = 0; n < 16; ++n) begin[n] = static_cast<float>(n);
        const TileConfiguration configuration = shapes(rows, groups, columns);
        if (trap) {
          configure(configuration);
          unit::clear_tile<0>();
          unit::load_tile<0>(begin, 0);
          unit::load_tile<1>(a, sizeof a[0]);
          unit::load_tile<2>(b[15], -int64_t{sizeof b[0]});  // bottom up
          unit::load_passing_tile<2>(b, sizeof b[0]);
          unit::multiply_bf16_tiles<0, 1, 2>();
          unit::store_tile<0>(sums, sizeof sums[0]);
          release();
        } else {
          amx_emulator::ldtilecfg(&configuration);
          amx_emulator::tilezero(0);
          amx_emulator::tileloadd(0, begin, 0);
          amx_emulator::tileloadd(1, a, sizeof a[0]);
          amx_emulator::tileloadd(2, b, sizeof b[0]);
          amx_emulator::tdpbf16ps(0, 1, 2);
          amx_emulator::tilestored(0, sums, sizeof sums[0]);
          amx_emulator::tilerelease();
        }
        CHECK(!amx_emulator::is_configured());
        for (int m = 0; m < 16; ++m) {
          for (int n = 0; n < 20; ++n) {
            int expected = n;
            for (int k = 0; k < 2 * groups; ++k) expected += number(m * 32 + k) * at(k, n);
            const bool written = m < rows && n < columns;
            CHECK_EQUAL(sums[m][n], static_cast<float>(written ? expected : -1));
          }
        }
      }
    }
  }
}

void test_int8(bool trap) {
  uint8_t a[3][8];
  int8_t b[2][16];
  int32_t sums[3][4] = {{1, 2, 3, 4}, {5, 6, 7, 8}, {9, 10, 11, INT32_MAX}};
  int64_t expected[3][4];
  for (int m = 0; m < 3; ++m) {
    for (int k = 0; k < 8; ++k) a[m][k] = static_cast<uint8_t>(k == 0 ? 255 : number(m + k) + 11);
  }
  for (int k = 0; k < 8; ++k) {
    for (int n = 0; n < 4; ++n) {
      b[k / 4][4 * n + k % 4] = static_cast<int8_t>(k == 0 ? -128 : number(3 * k + n));
    }
  }
  for (int m = 0; m < 3; ++m) {
    for (int n = 0; n < 4; ++n) {
      expected[m][n] = sums[m][n];
      for (int k = 0; k < 8; ++k) expected[m][n] += a[m][k] * b[k / 4][4 * n + k % 4];
    }
  }
  const TileConfiguration configuration = shapes(3, 2, 4);
  if (trap) {
    configure(configuration);
    unit::load_tile<0>(sums, sizeof sums[0]);
    unit::load_tile<1>(a, sizeof a[0]);
    unit::load_tile<2>(b, sizeof b[0]);
    unit::multiply_int8_tiles<0, 1, 2>();
    unit::store_tile<0>(sums, sizeof sums[0]);
    release();
  } else {
    amx_emulator::ldtilecfg(&configuration);
    amx_emulator::tileloadd(0, sums, sizeof sums[0]);
    amx_emulator::tileloadd(1, a, sizeof a[0]);
    amx_emulator::tileloadd(2, b, sizeof b[0]);
    amx_emulator::tdpbusd(0, 1, 2);
    amx_emulator::tilestored(0, sums, sizeof sums[0]);
    amx_emulator::tilerelease();
  }
  for (int m = 0; m < 3; ++m) {
    for (int n = 0; n < 4; ++n) CHECK_EQUAL(int64_t{sums[m][n]}, expected[m][n]);
  }
}

// Runs `call` in a process of its own; what it wrote before it aborted.
std::string fault_of(const std::function<void()>& call) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    call();
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  char part[256];
  for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;) {
    text.append(part, static_cast<size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT ? text : "not aborted: " + text;
}

void test_wrong_configurations() {
  const auto fault = [](const std::function<void(TileConfiguration&)>& spoil) {
    TileConfiguration configuration = shapes(16, 16, 16);
    spoil(configuration);
    return fault_of([&] { amx_emulator::ldtilecfg(&configuration); });
  };
  CHECK_EQUAL(fault([](auto&) {}), "not aborted: ");
  CHECK_EQUAL(fault([](auto& c) { c.palette = 2; }), "AMX: LDTILECFG: there is no palette 2\n");
  CHECK_EQUAL(fault([](auto& c) { c.start_row = 3; }),
              "AMX: LDTILECFG: start row 3: nothing was interrupted\n");
  CHECK_EQUAL(fault([](auto& c) { c.reserved[13] = 1; }),
              "AMX: LDTILECFG: byte 15 is reserved, and not 0\n");
  CHECK_EQUAL(fault([](auto& c) { c.no_row_bytes[0] = 64; }),
              "AMX: LDTILECFG: byte 32 is reserved, and not 0\n");
  CHECK_EQUAL(fault([](auto& c) { c.no_rows[7] = 1; }),
              "AMX: LDTILECFG: byte 63 is reserved, and not 0\n");
  CHECK_EQUAL(fault([](auto& c) { c.rows[1] = 17; }),
              "AMX: LDTILECFG: tmm1: 17 rows of 64 bytes\n");
  CHECK_EQUAL(fault([](auto& c) { c.row_bytes[2] = 68; }),
              "AMX: LDTILECFG: tmm2: 16 rows of 68 bytes\n");
  CHECK_EQUAL(fault([](auto& c) { c.rows[0] = 0; }), "AMX: LDTILECFG: tmm0: 0 rows of 64 bytes\n");
  CHECK_EQUAL(fault([](auto& c) { c.row_bytes[0] = 0; }),
              "AMX: LDTILECFG: tmm0: 16 rows of 0 bytes\n");
}

void test_wrong_use() {
  char row[64] = {};
  const auto fault = [&](const TileConfiguration& configuration, auto call) {
    return fault_of([&] {
      amx_emulator::ldtilecfg(&configuration);
      call();
    });
  };
  CHECK_EQUAL(fault_of([&] { amx_emulator::tileloadd(0, row, 0); }),
              "AMX: TILELOADD: tiles are not configured\n");
  CHECK_EQUAL(fault(shapes(4, 16, 16),
                    [&] {
                      amx_emulator::tilerelease();
                      amx_emulator::tilestored(0, row, 0);
                    }),
              "AMX: TILESTORED: tiles are not configured\n");
  CHECK_EQUAL(fault(shapes(4, 16, 16), [] { amx_emulator::tilezero(3); }),
              "AMX: TILEZERO: tmm3 is not configured\n");
  CHECK_EQUAL(fault(shapes(4, 16, 16), [] { amx_emulator::tilezero(8); }),
              "AMX: TILEZERO: there is no tmm8\n");
  CHECK_EQUAL(fault(shapes(4, 16, 16), [] { amx_emulator::tdpbf16ps(0, 1, 1); }),
              "AMX: TDPBF16PS: tmm0, tmm1, tmm1: expected three registers\n");
  TileConfiguration odd = shapes(4, 16, 16);
  odd.row_bytes[1] = 62;
  CHECK_EQUAL(fault(odd, [] { amx_emulator::tdpbf16ps(0, 1, 2); }),
              "AMX: TDPBF16PS: rows of 64, 62, 64 bytes: expected multiples of 4\n");
  const auto unfit = [&](auto spoil) {
    TileConfiguration configuration = shapes(4, 16, 16);
    spoil(configuration);
    return fault(configuration, [] { amx_emulator::tdpbusd(0, 1, 2); });
  };
  CHECK_EQUAL(unfit([](auto& c) { c.rows[1] = 5; }),
              "AMX: TDPBUSD: shapes 4 x 64 = 5 x 64 times 16 x 64 bytes do not fit\n");
  CHECK_EQUAL(unfit([](auto& c) { c.rows[2] = 15; }),
              "AMX: TDPBUSD: shapes 4 x 64 = 4 x 64 times 15 x 64 bytes do not fit\n");
  CHECK_EQUAL(unfit([](auto& c) { c.row_bytes[2] = 60; }),
              "AMX: TDPBUSD: shapes 4 x 64 = 4 x 64 times 16 x 60 bytes do not fit\n");
}

// Whether the system lets this process have AMX's registers, from now on.
bool grants_tiles() {
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return cpu_has_amx() && syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

// Numbers of all sizes, denormals, infinities and NaN among them: the emulator has the CPU's bits,
// but for those of a NaN.
void test_against_the_cpu() {
  uint32_t state = 1;
  const auto random = [&state] { return state = state * 1664525u + 1013904223u; };
  for (int i = 0; i < 2000; ++i) {
    uint16_t a[16][32], b[16][32];
    float sums[16][16], expected[16][16];
    const uint32_t spread = i % 4 == 0   ? 0xffff
                            : i % 4 == 1 ? 0x83ff
                            : i % 4 == 2 ? 0x807f
                                         : 0x87ff;
    const uint32_t base = i % 4 == 0 ? 0 : i % 4 == 2 ? 0x0040 : 0x3c00;
    for (int m = 0; m < 16; ++m) {
      for (int k = 0; k < 32; ++k) {
        a[m][k] = static_cast<uint16_t>(base + (random() >> 13 & spread));
        b[m][k] = static_cast<uint16_t>(i % 4 == 2 ? 0x3f80 + (random() >> 13 & 0x80ff)
                                                   : base + (random() >> 13 & spread));
      }
      for (int n = 0; n < 16; ++n) {
        const uint32_t bits = (random() & 0x80ffffffu) | (i % 4 == 2 ? 0u : 0x3f000000u);
        std::memcpy(&sums[m][n], &bits, sizeof bits);
      }
    }
    std::memcpy(expected, sums, sizeof sums);
    const TileConfiguration configuration = shapes(16, 16, 16);
    unit::configure_tiles(configuration);
    unit::load_tile<0>(sums, sizeof sums[0]);
    unit::load_tile<1>(a, sizeof a[0]);
    unit::load_passing_tile<2>(b, sizeof b[0]);
    unit::multiply_bf16_tiles<0, 1, 2>();
    unit::store_tile<0>(sums, sizeof sums[0]);
    unit::release_tiles();
    amx_emulator::ldtilecfg(&configuration);
    amx_emulator::tileloadd(0, expected, sizeof expected[0]);
    amx_emulator::tileloadd(1, a, sizeof a[0]);
    amx_emulator::tileloadd(2, b, sizeof b[0]);
    amx_emulator::tdpbf16ps(0, 1, 2);
    amx_emulator::tilestored(0, expected, sizeof expected[0]);
    amx_emulator::tilerelease();
    for (int m = 0; m < 16; ++m) {
      for (int n = 0; n < 16; ++n) {
        if (std::isnan(sums[m][n]) && std::isnan(expected[m][n])) continue;
        CHECK_EQUAL(std::memcmp(&sums[m][n], &expected[m][n], sizeof(float)), 0);
      }
    }
  }
}

void test_other_instructions_trap_as_ever() {
  const pid_t child = fork();
  if (child == 0) {
    asm volatile("ud2");
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFSIGNALED(status));
  CHECK_EQUAL(WTERMSIG(status), SIGILL);
}

}  // namespace

int main() {
  if (!__builtin_cpu_supports("avx512f")) return kSkipped;  // the emulator is compiled with it
  test_order_of_sums();
  test_numbers_at_the_ends();
  test_shapes(false);
  test_int8(false);
  test_wrong_configurations();
  test_wrong_use();

  amx_emulator::install();
  test_shapes(true);
  test_int8(true);
  test_other_instructions_trap_as_ever();
  if (grants_tiles()) test_against_the_cpu();  // last: nothing traps from then on
  return check::result();
}
