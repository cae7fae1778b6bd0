#include <cstdio>
#include <cstdlib>

#include "engine/thread.h"

namespace fusedrnn::emulator {

void fail_on_host() {
  std::fputs("emulator: a function of cuda/device was called on the host\n", stderr);
  std::abort();
}

}  // namespace fusedrnn::emulator
