// What the library knows of the machine, and the switches it has: core's door to the backends for
// all that is not a forward or backward pass.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fusedrnn {

struct SystemInfo {
  std::string version;
  std::string isa;  // the CPU instruction set in use
  std::vector<std::string> isas_available;
  std::vector<std::string> isas_compiled;
  int threads = 0;
  int cpus_available = 0;
  std::vector<std::string> cuda_devices;
  std::string cuda;  // the CUDA library, or why no device can be used
  int64_t cuda_plain_products = 0;
};
SystemInfo system_info();

// Throws where FUSEDRNN_ISA asks for what this machine cannot do.
void require_usable_isa();

int get_num_threads();
void set_num_threads(int n);

}  // namespace fusedrnn
