#include "core/cuda_library.h"

#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <mutex>

#include "core/error.h"

namespace fusedrnn {
namespace {

constexpr const char* kVariable = "FUSEDRNN_CUDA_LIBRARY";
constexpr const char* kFile = "libfusedrnn_cuda.so";

struct Candidate {
  std::string path;
  std::string source;     // who named it, for messages
  bool is_named = false;  // by anybody; else it need not be there
};

std::atomic<const CudaPlugin*> opened{nullptr};
std::mutex mutex;  // guards what follows
bool tried = false;
std::string reason;
std::string given_path;

std::string beside_this_library() {
  Dl_info place{};
  if (dladdr(reinterpret_cast<const void*>(&beside_this_library), &place) == 0) return kFile;
  const std::string self = place.dli_fname;
  const size_t slash = self.rfind('/');
  return slash == std::string::npos ? kFile : self.substr(0, slash + 1) + kFile;
}

Candidate candidate() {
  const char* path = std::getenv(kVariable);
  if (path != nullptr && path[0] != '\0') return {path, std::string(kVariable) + ": ", true};
  if (!given_path.empty()) return {given_path, "", true};
  return {beside_this_library(), "", false};
}

// Null, and `why`, where it is no such library.
const CudaPlugin* open_plugin(const Candidate& file, std::string& why) {
  const std::string& path = file.path;
  if (!file.is_named && access(path.c_str(), F_OK) != 0) {
    why = std::string(
              "no CUDA library is installed: pip install 'fusedrnn[cuda13]', or name one in ") +
          kVariable;
    return nullptr;
  }
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

}  // namespace

const CudaPlugin* find_cuda_plugin(std::string& why) {
  if (const CudaPlugin* plugin = opened.load(std::memory_order_acquire)) return plugin;
  const std::lock_guard lock(mutex);
  if (!tried) {
    tried = true;
    reason.clear();
    const Candidate file = candidate();
    std::string trouble;
    opened.store(open_plugin(file, trouble), std::memory_order_release);
    if (!trouble.empty()) reason = file.source + trouble;
  }
  why = reason;
  return opened.load(std::memory_order_relaxed);
}

const CudaPlugin& cuda_plugin() {
  std::string why;
  const CudaPlugin* plugin = find_cuda_plugin(why);
  if (plugin == nullptr) throw Error(FUSEDRNN_UNAVAILABLE, why);
  return *plugin;
}

void set_cuda_library(const std::string& path) {
  const std::lock_guard lock(mutex);
  given_path = path;
  tried = opened.load(std::memory_order_relaxed) != nullptr;
}

void check_cuda(const CudaPlugin& plugin, fusedrnn_status status) {
  if (status != FUSEDRNN_OK) throw Error(status, plugin.last_error());
}

}  // namespace fusedrnn
