// Where cuBLASLt is found: the environment that ctest sets has it in several places, and this
// program is told which must win.

#include <dlfcn.h>

#include <iostream>
#include <string>

#include "call.h"
#include "check.h"
#include "emulator.h"

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: backend_find_test EXPECTED [LOADED]\n";
    return 2;
  }
  emulator_set_driver(13000);
  // As a framework would have it.
  if (argc > 2) CHECK(dlopen(argv[2], RTLD_NOW | RTLD_LOCAL) != nullptr);
  const std::string expected = argv[1], description = backend_test::plugin().description();
  if (description.find(expected) == std::string::npos) {
    check::fail(__FILE__, __LINE__, "expected " + expected + ", got " + description);
  }
  return check::result();
}
