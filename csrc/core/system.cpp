#include "core/system.h"

#include "core/cuda_library.h"
#include "cpu/isa/detect.h"
#include "cpu/threads/pool.h"

namespace fusedrnn {
namespace {

std::vector<std::string> isa_names(const std::vector<cpu::Isa>& isas) {
  std::vector<std::string> names;
  for (const cpu::Isa isa : isas) names.emplace_back(cpu::isa_name(isa));
  return names;
}

}  // namespace

SystemInfo system_info() {
  SystemInfo info{.version = FUSEDRNN_VERSION,
                  .isa = cpu::isa_name(cpu::selected_isa()),
                  .isas_available = isa_names(cpu::available_isas()),
                  .isas_compiled = isa_names(cpu::compiled_isas()),
                  .threads = cpu::get_num_threads(),
                  .cpus_available = cpu::available_cpus(),
                  .cuda_devices = {},
                  .cuda = {},
                  .cuda_plain_products = cuda_plain_products()};
  info.cuda_devices = cuda_devices(info.cuda);
  return info;
}

void require_usable_isa() { cpu::selected_isa(); }

int get_num_threads() { return cpu::get_num_threads(); }
void set_num_threads(int n) { cpu::set_num_threads(n); }

}  // namespace fusedrnn
