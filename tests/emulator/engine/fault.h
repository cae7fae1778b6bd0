// Why a call of the runtime fails.
#pragma once

#include <cuda_runtime.h>

#include <string>

namespace fusedrnn::emulator {

struct Fault {
  cudaError_t code;
  std::string text;  // "": the code's own
};

const char* text_of(cudaError_t code);
const char* name_of(cudaError_t code);

}  // namespace fusedrnn::emulator
