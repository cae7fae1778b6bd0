#include "core/cuda_library.h"

#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <memory>

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

// What a search came to.
struct Finding {
  const CudaPlugin* plugin;  // null where there is none
  std::string why;
};

// A search with the path that it was given. Atomics rather than a lock, which a fork could copy
// while another thread is opening a library. Nothing is destroyed: other threads may read it, also
// while the process exits.
struct Search {
  std::string given_path;
  Search* previous = nullptr;                    // still in somebody's hands, perhaps
  std::atomic<const Finding*> finding{nullptr};  // null: not searched yet
};
std::atomic<Search*> latest{nullptr};
std::atomic<const CudaPlugin*> opened{nullptr};  // the first that was found; it stays

Search& latest_search() {
  Search* search = latest.load(std::memory_order_acquire);
  if (search != nullptr) return *search;
  auto fresh = std::make_unique<Search>();
  if (latest.compare_exchange_strong(search, fresh.get(), std::memory_order_acq_rel)) {
    search = fresh.release();
  }
  return *search;
}

std::string beside_this_library() {
  Dl_info place{};
  if (dladdr(reinterpret_cast<const void*>(&beside_this_library), &place) == 0) return kFile;
  const std::string self = place.dli_fname;
  const size_t slash = self.rfind('/');
  return slash == std::string::npos ? kFile : self.substr(0, slash + 1) + kFile;
}

Candidate candidate(const std::string& given_path) {
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

// Of several threads that search at once, each opens the library: that is one library all the same.
const Finding& finding_of(Search& search) {
  const Finding* known = search.finding.load(std::memory_order_acquire);
  if (known != nullptr) return *known;
  const Candidate file = candidate(search.given_path);
  auto fresh = std::make_unique<Finding>();
  std::string trouble;
  fresh->plugin = open_plugin(file, trouble);
  if (!trouble.empty()) fresh->why = file.source + trouble;
  if (search.finding.compare_exchange_strong(known, fresh.get(), std::memory_order_acq_rel)) {
    known = fresh.release();
  }
  return *known;
}

}  // namespace

const CudaPlugin* find_cuda_plugin(std::string& why) {
  if (const CudaPlugin* plugin = opened.load(std::memory_order_acquire)) return plugin;
  const Finding& finding = finding_of(latest_search());
  if (finding.plugin == nullptr) {
    why = finding.why;
    return nullptr;
  }
  const CudaPlugin* first = nullptr;
  return opened.compare_exchange_strong(first, finding.plugin, std::memory_order_acq_rel)
             ? finding.plugin
             : first;
}

const CudaPlugin& cuda_plugin() {
  std::string why;
  const CudaPlugin* plugin = find_cuda_plugin(why);
  if (plugin == nullptr) throw Error(FUSEDRNN_UNAVAILABLE, why);
  return *plugin;
}

void set_cuda_library(const std::string& path) {
  if (opened.load(std::memory_order_acquire) != nullptr) return;
  auto next = std::make_unique<Search>();
  next->given_path = path;
  next->previous = latest.load(std::memory_order_acquire);
  while (!latest.compare_exchange_weak(next->previous, next.get(), std::memory_order_acq_rel)) {
  }
  next.release();
}

void check_cuda(const CudaPlugin& plugin, fusedrnn_status status) {
  if (status != FUSEDRNN_OK) throw Error(status, plugin.last_error());
}

}  // namespace fusedrnn
