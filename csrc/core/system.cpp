#include "core/system.h"

#include <utility>

#include "core/cuda_devices.h"
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
  SystemInfo info;
  info.version = FUSEDRNN_VERSION;
  info.isa = cpu::isa_name(cpu::selected_isa());
  info.isas_available = isa_names(cpu::available_isas());
  info.isas_compiled = isa_names(cpu::compiled_isas());
  info.threads = cpu::get_num_threads();
  info.cpus_available = cpu::available_cpus();
  CudaSummary cuda = cuda_summary();
  info.cuda_devices = std::move(cuda.devices);
  info.cuda = std::move(cuda.about);
  return info;
}

void require_usable_isa() { cpu::selected_isa(); }

int get_num_threads() { return cpu::get_num_threads(); }
void set_num_threads(int n) { cpu::set_num_threads(n); }

}  // namespace fusedrnn
