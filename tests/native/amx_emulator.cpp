#include "amx_emulator.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cpu/fp_mode.h"

namespace amx_emulator {

namespace {

constexpr int kRegisters = 8;  // of palette 1
constexpr int kRows = 16;
constexpr int kRowBytes = 64;
constexpr int kColumns = kRowBytes / 4;

struct alignas(64) Register {
  int rows, row_bytes;
  uint32_t data[kRows][kColumns];
};

struct Registers {
  bool configured;
  int64_t products;
  Register tile[kRegisters];
};
thread_local Registers registers{};

[[noreturn]] [[gnu::format(printf, 2, 3)]] void fault(const char* instruction, const char* format,
                                                      ...) {
  std::fprintf(stderr, "AMX: %s: ", instruction);
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fputs("\n", stderr);
  std::abort();
}

Register& configured(const char* instruction, int tile) {
  if (tile < 0 || tile >= kRegisters) fault(instruction, "there is no tmm%d", tile);
  if (!registers.configured) fault(instruction, "tiles are not configured");
  Register& found = registers.tile[tile];
  if (found.rows == 0) fault(instruction, "tmm%d is not configured", tile);
  return found;
}

// The operands of a product, checked.
struct Operands {
  Operands(const char* instruction, int sum_tile, int a_tile, int b_tile)
      : sum(configured(instruction, sum_tile)),
        a(configured(instruction, a_tile)),
        b(configured(instruction, b_tile)) {
    if (sum_tile == a_tile || sum_tile == b_tile || a_tile == b_tile) {
      fault(instruction, "tmm%d, tmm%d, tmm%d: expected three registers", sum_tile, a_tile, b_tile);
    }
    if (sum.row_bytes % 4 != 0 || a.row_bytes % 4 != 0 || b.row_bytes % 4 != 0) {
      fault(instruction, "rows of %d, %d, %d bytes: expected multiples of 4", sum.row_bytes,
            a.row_bytes, b.row_bytes);
    }
    if (sum.rows != a.rows || sum.row_bytes != b.row_bytes || a.row_bytes / 4 != b.rows) {
      fault(instruction, "shapes %d x %d = %d x %d times %d x %d bytes do not fit", sum.rows,
            sum.row_bytes, a.rows, a.row_bytes, b.rows, b.row_bytes);
    }
  }

  Register &sum, &a, &b;
};

void clear_after(Register& tile, int rows, int row_bytes) {
  for (int m = 0; m < kRows; ++m) {
    const int kept = m < rows ? row_bytes : 0;
    std::memset(reinterpret_cast<char*>(tile.data[m]) + kept, 0,
                static_cast<size_t>(kRowBytes - kept));
  }
}

float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// In a function of its own, so that no arithmetic leaves the mode it is called in.
[[gnu::noinline]] void multiply_bf16(const Operands& o) {
  const int columns = o.b.row_bytes / 4;
  float even[kRows][kColumns], odd[kRows][kColumns];  // of b, by pair and column
  for (int k = 0; k < o.b.rows; ++k) {
    for (int n = 0; n < kColumns; ++n) {
      even[k][n] = float_of(o.b.data[k][n] << 16);
      odd[k][n] = float_of(o.b.data[k][n] & 0xffff0000u);
    }
  }
  for (int m = 0; m < o.sum.rows; ++m) {
    float sums_of_even[kColumns] = {}, sums_of_odd[kColumns] = {};
    for (int k = 0; k < o.b.rows; ++k) {
      const float first = float_of(o.a.data[m][k] << 16);
      const float second = float_of(o.a.data[m][k] & 0xffff0000u);
      for (int n = 0; n < kColumns; ++n) {
        sums_of_even[n] = __builtin_fmaf(first, even[k][n], sums_of_even[n]);
        sums_of_odd[n] = __builtin_fmaf(second, odd[k][n], sums_of_odd[n]);
      }
    }
    for (int n = 0; n < columns; ++n) {
      const float sum = float_of(o.sum.data[m][n]) + (sums_of_even[n] + sums_of_odd[n]);
      std::memcpy(&o.sum.data[m][n], &sum, sizeof sum);
    }
  }
}

}  // namespace

void ldtilecfg(const void* configuration) {
  const char* const name = "LDTILECFG";
  uint8_t bytes[64];
  std::memcpy(bytes, configuration, sizeof bytes);
  if (bytes[0] > 1) fault(name, "there is no palette %d", bytes[0]);
  tilerelease();
  if (bytes[0] == 0) return;
  if (bytes[1] != 0) fault(name, "start row %d: nothing was interrupted", bytes[1]);
  for (int i = 2; i < 64; ++i) {
    const bool reserved = i < 16 || (i >= 32 && i < 48) || i >= 56;
    if (reserved && bytes[i] != 0) fault(name, "byte %d is reserved, and not 0", i);
  }
  for (int i = 0; i < kRegisters; ++i) {
    const int row_bytes = bytes[16 + 2 * i] | bytes[17 + 2 * i] << 8, rows = bytes[48 + i];
    if (row_bytes > kRowBytes || rows > kRows || (row_bytes == 0) != (rows == 0)) {
      fault(name, "tmm%d: %d rows of %d bytes", i, rows, row_bytes);
    }
    registers.tile[i].rows = rows;
    registers.tile[i].row_bytes = row_bytes;
  }
  registers.configured = true;
}

void tilerelease() {
  const int64_t products = registers.products;
  registers = {};
  registers.products = products;
}

bool is_configured() { return registers.configured; }

int64_t products() { return registers.products; }

void tilezero(int tile) { clear_after(configured("TILEZERO", tile), 0, 0); }

void tileloadd(int tile, const void* base, int64_t stride) {
  Register& to = configured("TILELOADD", tile);
  clear_after(to, 0, 0);
  for (int m = 0; m < to.rows; ++m) {
    std::memcpy(to.data[m], static_cast<const char*>(base) + m * stride,
                static_cast<size_t>(to.row_bytes));
  }
}

void tilestored(int tile, void* base, int64_t stride) {
  const Register& from = configured("TILESTORED", tile);
  for (int m = 0; m < from.rows; ++m) {
    std::memcpy(static_cast<char*>(base) + m * stride, from.data[m],
                static_cast<size_t>(from.row_bytes));
  }
}

void tdpbf16ps(int sum, int a, int b) {
  const Operands operands("TDPBF16PS", sum, a, b);
  const fusedrnn::cpu::FlushDenormals mode;  // whatever the caller's
  multiply_bf16(operands);
  clear_after(operands.sum, operands.sum.rows, operands.sum.row_bytes);
  ++registers.products;
}

void tdpbusd(int sum, int a, int b) {
  const Operands o("TDPBUSD", sum, a, b);
  for (int m = 0; m < o.sum.rows; ++m) {
    for (int k = 0; k < o.b.rows; ++k) {
      for (int n = 0; n < o.b.row_bytes / 4; ++n) {
        int32_t total = 0;
        for (int i = 0; i < 4; ++i) {
          const auto unsigned_one = static_cast<uint8_t>(o.a.data[m][k] >> 8 * i);
          total += unsigned_one * static_cast<int8_t>(o.b.data[k][n] >> 8 * i);
        }
        o.sum.data[m][n] += static_cast<uint32_t>(total);
      }
    }
  }
  clear_after(o.sum, o.sum.rows, o.sum.row_bytes);
  ++registers.products;
}

}  // namespace amx_emulator
