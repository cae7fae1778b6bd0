// The floating-point mode in which kernels run.
#pragma once

#include <cstdint>

namespace fusedrnn::cpu {

// While it lives, this thread flushes denormal inputs and results to zero (decaying states would
// otherwise run many times slower), rounds to nearest and traps nothing: the same mode in the
// caller and in every worker, so that the bits do not depend on who computed them. The destructor
// puts the mode of before back exactly, sticky exception flags included. Out of line, so that the
// compiler moves no arithmetic across it and wide units get no copy.
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  uint64_t before_;  // MXCSR, or FPCR and FPSR
};

}  // namespace fusedrnn::cpu
