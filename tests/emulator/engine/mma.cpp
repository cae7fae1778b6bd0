#include "engine/mma.h"

#include <cstring>

#include "cuda/device/number.h"
#include "engine/kernel_run.h"
#include "engine/weak_memory.h"

namespace fusedrnn::emulator {
namespace {

constexpr int kRowsOfA = 16, kColumnsOfB = 8, kMostDepth = 16;

struct Fragments {
  uint32_t a[4], b[2];
};

struct Operands {
  float a[kRowsOfA][kMostDepth];
  float b[kMostDepth][kColumnsOfB];
  int depth;
};

float number(MmaFormat format, uint32_t bits) {
  const auto low = static_cast<uint16_t>(bits);
  if (format == MmaFormat::bf16) return cuda::device::to_float(cuda::device::Bf16{low});
  return cuda::device::to_float(cuda::device::Half{low});
}

// Two numbers along k in a register.
void place_pairs(MmaFormat format, const Fragments& lane, int g, int t, Operands& operands) {
  for (int high = 0; high < 2; ++high) {
    for (int i = 0; i < 4; ++i) {
      operands.a[g + i % 2 * 8][2 * t + i / 2 * 8 + high] = number(format, lane.a[i] >> 16 * high);
    }
    for (int i = 0; i < 2; ++i) {
      operands.b[2 * t + i * 8 + high][g] = number(format, lane.b[i] >> 16 * high);
    }
  }
}

float tf32(uint32_t bits) {
  bits &= 0xffffe000u;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

void place_tf32(const Fragments& lane, int g, int t, Operands& operands) {
  for (int i = 0; i < 4; ++i) operands.a[g + i % 2 * 8][t + i / 2 * 4] = tf32(lane.a[i]);
  for (int i = 0; i < 2; ++i) operands.b[t + i * 4][g] = tf32(lane.b[i]);
}

Operands gather(MmaFormat format, const Warp::Offer& offer) {
  Operands operands{};
  operands.depth = format == MmaFormat::tf32 ? 8 : 16;
  for (int i = 0; i < kWarpThreads; ++i) {
    Fragments lane;
    std::memcpy(&lane, offer.bytes[i], sizeof lane);
    if (format == MmaFormat::tf32) {
      place_tf32(lane, i / 4, i % 4, operands);
    } else {
      place_pairs(format, lane, i / 4, i % 4, operands);
    }
  }
  return operands;
}

}  // namespace

void mma(MmaFormat format, float* d, const uint32_t* a, const uint32_t* b, const Where& where) {
  Fragments own;
  std::memcpy(own.a, a, sizeof own.a);
  std::memcpy(own.b, b, sizeof own.b);
  const Warp::Offer& offer = exchange(&own, sizeof own, "mma", where);
  const Operands operands = gather(format, offer);
  const int g = self().index % kWarpThreads / 4, t = self().index % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = g + i / 2 * 8, column = 2 * t + i % 2;
    double sum = 0;  // exact but for its last rounding; the hardware's own order is not documented
    for (int k = 0; k < operands.depth; ++k) {
      sum += double{operands.a[row][k]} * operands.b[k][column];
    }
    d[i] = static_cast<float>(d[i] + sum);
  }
}

void load_matrices(uint32_t* r, int count, const void* row, bool transposed, const Where& where) {
  const int lane = self().index % kWarpThreads;
  if (lane < 8 * count) check_aligned(row, 16);
  const Warp::Offer& offer = exchange(&row, sizeof row, "load_matrices", where);
  const int g = lane / 4, t = lane % 4;
  for (int matrix = 0; matrix < count; ++matrix) {
    r[matrix] = 0;
    for (int high = 0; high < 2; ++high) {
      const int from_row = transposed ? 2 * t + high : g, column = transposed ? g : 2 * t + high;
      const uint16_t* numbers;
      std::memcpy(&numbers, offer.bytes[8 * matrix + from_row], sizeof numbers);
      r[matrix] |= static_cast<uint32_t>(numbers[column]) << 16 * high;
    }
  }
}

}  // namespace fusedrnn::emulator
