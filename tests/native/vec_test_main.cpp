// Runs vec_test.cpp where its instruction set can run, in the caller's floating-point mode and in
// that of the kernels. Compiled for the baseline.

#include <iostream>

#include "cpu/fp_mode.h"
#include "cpu/isa/detect.h"

extern "C" int vec_test();

int main() {
  using fusedrnn::cpu::isa_name;
  for (const fusedrnn::cpu::Isa isa : fusedrnn::cpu::available_isas()) {
    if (std::string(isa_name(isa)) != FUSEDRNN_VEC_ISA) continue;
    int failures = vec_test();
    const fusedrnn::cpu::FlushDenormals as_in_kernels;
    failures += vec_test();
    if (failures > 0) std::cerr << failures << " checks failed\n";
    return failures > 0 ? 1 : 0;
  }
  std::cout << FUSEDRNN_VEC_ISA << " cannot run on this machine\n";
  return 77;  // what ctest takes for "not on this machine"
}
