// What the tensor cores do, lane by lane.
#pragma once

#include <cstdint>

#include "engine/thread.h"

namespace fusedrnn::emulator {

enum class MmaFormat { bf16, f16, tf32 };

void mma(MmaFormat format, float* d, const uint32_t* a, const uint32_t* b, const Where& where);
void load_matrices(uint32_t* r, int count, const void* row, bool transposed, const Where& where);

}  // namespace fusedrnn::emulator
