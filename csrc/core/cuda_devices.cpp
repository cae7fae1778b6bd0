#include "core/cuda_devices.h"

#include <atomic>
#include <cstdio>

#include "core/cuda_library.h"
#include "core/error.h"
#include "core/tensor.h"

namespace fusedrnn {
namespace {

// Those that have been found usable, a bit each: they stay so, and calls are many.
std::atomic<uint64_t> usable{0};

uint64_t bit_of(int32_t device) { return device < 64 ? uint64_t{1} << device : 0; }

int32_t count_devices(const CudaPlugin& plugin, std::string& why) {
  char text[512] = "";
  const int32_t count = plugin.device_count(text, sizeof text);
  if (count <= 0) why = text;
  return count;
}

std::string describe(int32_t index, const CudaDevice& device) {
  char facts[96];
  std::snprintf(facts, sizeof facts, ", compute capability %d.%d, %.1f GiB",
                static_cast<int>(device.capability / 10), static_cast<int>(device.capability % 10),
                static_cast<double>(device.memory) / (1 << 30));
  return device_name({kDLCUDA, index}) + ": " + device.name + facts;
}

}  // namespace

CudaSummary cuda_summary() {
  CudaSummary summary;
  const CudaPlugin* plugin = find_cuda_plugin(summary.about);
  if (plugin == nullptr) return summary;
  const int32_t count = count_devices(*plugin, summary.about);
  for (int32_t i = 0; i < count; ++i) {
    CudaDevice device{};
    if (plugin->describe_device(i, &device) != FUSEDRNN_OK) {
      summary.about += device_name({kDLCUDA, i}) + ": " + plugin->last_error() + "; ";
    } else if (device.unusable[0] != '\0') {
      summary.about += describe(i, device) + ": " + device.unusable + "; ";
    } else {
      summary.devices.push_back(describe(i, device));
    }
  }
  if (count > 0) summary.about += plugin->description();
  return summary;
}

void require_cuda_device(const Name& name, DLDevice device) {
  const int32_t id = device.device_id;
  if (id >= 0 && (usable.load(std::memory_order_relaxed) & bit_of(id)) != 0) return;
  const auto refuse = [&](const std::string& why) {
    throw Error(FUSEDRNN_UNAVAILABLE,
                name.text() + ": " + device_name({kDLCUDA, id}) + " cannot be used: " + why);
  };
  std::string why;
  const CudaPlugin* plugin = find_cuda_plugin(why);
  if (plugin == nullptr) refuse(why);
  const int32_t count = count_devices(*plugin, why);
  if (count <= 0) refuse(why);
  if (id < 0 || id >= count) refuse("there are " + std::to_string(count) + " CUDA devices");
  CudaDevice description{};
  if (plugin->describe_device(id, &description) != FUSEDRNN_OK) refuse(plugin->last_error());
  if (description.unusable[0] != '\0') refuse(description.unusable);
  usable.fetch_or(bit_of(id), std::memory_order_relaxed);
}

}  // namespace fusedrnn
