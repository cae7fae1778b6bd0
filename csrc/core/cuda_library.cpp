#include "core/cuda_library.h"

#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "core/tensor.h"

namespace fusedrnn {
namespace {

constexpr const char* kVariable = "FUSEDRNN_CUDA_LIBRARY";
constexpr const char* kFile = "libfusedrnn_cuda.so";

// What came of looking somewhere.
struct Search {
  const std::string* path = nullptr;   // as it was given
  const CudaPlugin* plugin = nullptr;  // once found it stays
  std::string why = {};                // there is none
  const Search* previous = nullptr;    // still in somebody's hands, perhaps
};

// Atomics rather than a lock, which a fork could copy while another thread is opening a library.
// Nothing is changed or destroyed: other threads may read it, also while the process exits.
std::atomic<const std::string*> given{nullptr};
std::atomic<const Search*> latest{nullptr};

std::string beside_this_library() {
  Dl_info place{};
  if (dladdr(reinterpret_cast<const void*>(&beside_this_library), &place) == 0) return kFile;
  const std::string self = place.dli_fname;
  return self.substr(0, self.rfind('/') + 1) + kFile;
}

// Null, and `why`, where it is no such library.
const CudaPlugin* open_plugin(const std::string& path, std::string& why) {
  // Local: its cudart and its C++ are nobody else's. Now: what is missing shows here, and not in
  // the first kernel.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    why = "cannot open the CUDA library: " + std::string(dlerror());
    return nullptr;
  }
  const auto entry = reinterpret_cast<CudaPluginEntry>(dlsym(library, kCudaPluginSymbol));
  if (entry == nullptr) {
    why = path + " is not the CUDA library of fusedrnn: it has no " + kCudaPluginSymbol;
  } else if (const CudaPlugin* plugin = entry(); plugin->version == kCudaPluginVersion) {
    return plugin;
  } else {
    why = path + " has interface " + std::to_string(plugin->version) + ", but fusedrnn " +
          FUSEDRNN_VERSION + " needs interface " + std::to_string(kCudaPluginVersion) +
          ": install the two in the same version";
  }
  dlclose(library);
  return nullptr;
}

Search search(const std::string* given_path) {
  Search result{given_path};
  const char* named = std::getenv(kVariable);
  if (named != nullptr && named[0] != '\0') {
    result.plugin = open_plugin(named, result.why);
    if (result.plugin == nullptr) result.why = std::string(kVariable) + ": " + result.why;
    return result;
  }
  const bool is_given = given_path != nullptr && !given_path->empty();
  const std::string path = is_given ? *given_path : beside_this_library();
  if (!is_given && access(path.c_str(), F_OK) != 0) {
    result.why = std::string(
                     "no CUDA library is installed: pip install 'fusedrnn[cuda13]', or "
                     "name one in ") +
                 kVariable;
  } else {
    result.plugin = open_plugin(path, result.why);
  }
  return result;
}

// Of several threads that search at once, each opens the library: that is one library all the same.
// What the first of them found stays.
const Search& found() {
  const Search* known = latest.load(std::memory_order_acquire);
  for (;;) {
    const std::string* const path = given.load(std::memory_order_acquire);
    if (known != nullptr && (known->plugin != nullptr || known->path == path)) return *known;
    auto fresh = std::make_unique<Search>(search(path));
    fresh->previous = known;
    if (latest.compare_exchange_strong(known, fresh.get(), std::memory_order_acq_rel)) {
      return *fresh.release();
    }
  }
}

// Devices that have been found usable, a bit each: they stay so, and calls are many.
std::atomic<uint64_t> usable{0};

uint64_t bit_of(int32_t device) { return device < 64 ? uint64_t{1} << device : 0; }

// Of the library that was found. `why`: there is none.
int32_t count_devices(const Search& result, std::string& why) {
  why = result.why;
  if (result.plugin == nullptr) return 0;
  char text[512] = "";
  const int32_t count = result.plugin->device_count(text, sizeof text);
  if (count <= 0) why = text;
  return count;
}

// Empty where it can be used.
std::string why_unusable(const Search& result, int32_t index, CudaDevice& device) {
  std::string why;
  const int32_t count = count_devices(result, why);
  if (count <= 0) return why;
  if (index < 0 || index >= count) return "there are " + std::to_string(count) + " CUDA devices";
  const bool known = result.plugin->describe_device(index, &device) == FUSEDRNN_OK;
  return known ? device.unusable : result.plugin->last_error();
}

std::string facts_of(const CudaDevice& device) {
  char facts[96];
  std::snprintf(facts, sizeof facts, ", compute capability %d.%d, %.1f GiB",
                static_cast<int>(device.capability / 10), static_cast<int>(device.capability % 10),
                static_cast<double>(device.memory) / (1 << 30));
  return std::string(": ") + device.name + facts;
}

}  // namespace

const CudaPlugin& cuda_plugin() {
  const Search& result = found();
  if (result.plugin == nullptr) throw Error(FUSEDRNN_UNAVAILABLE, result.why);
  return *result.plugin;
}

void set_cuda_library(const std::string& path) {
  given.store(new std::string(path), std::memory_order_release);
}

void check_cuda(const CudaPlugin& plugin, fusedrnn_status status) {
  if (status != FUSEDRNN_OK) throw Error(status, plugin.last_error());
}

std::vector<std::string> cuda_devices(std::string& about) {
  std::vector<std::string> devices;
  const Search& result = found();
  const int32_t count = count_devices(result, about);
  for (int32_t i = 0; i < count; ++i) {
    CudaDevice device{};
    const std::string why = why_unusable(result, i, device);
    std::string text = device_name({kDLCUDA, i});
    if (device.name[0] != '\0') text += facts_of(device);
    if (why.empty()) {
      devices.push_back(text);
    } else {
      about += text + ": " + why + "; ";
    }
  }
  if (count > 0) about += result.plugin->description();
  return devices;
}

int64_t cuda_plain_products() {
  const CudaPlugin* const plugin = found().plugin;
  return plugin == nullptr ? 0 : plugin->plain_products();
}

void require_cuda_device(const Name& name, DLDevice device) {
  const int32_t id = device.device_id;
  if (id >= 0 && (usable.load(std::memory_order_relaxed) & bit_of(id)) != 0) return;
  CudaDevice description{};
  const std::string why = why_unusable(found(), id, description);
  if (!why.empty()) {
    throw Error(FUSEDRNN_UNAVAILABLE,
                name.text() + ": " + device_name({kDLCUDA, id}) + " cannot be used: " + why);
  }
  usable.fetch_or(bit_of(id), std::memory_order_relaxed);
}

}  // namespace fusedrnn
