#include "cuda/gemm/find_cublaslt.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <sstream>
#include <vector>

namespace fusedrnn::cuda::cublaslt {
namespace {

namespace fs = std::filesystem;

// The newest first. Both have all that is used.
constexpr const char* kNames[] = {"libcublasLt.so.13", "libcublasLt.so.12"};

std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// The folder of this library's own file.
fs::path own_folder() {
  Dl_info info{};
  static const char anchor = 0;
  if (dladdr(&anchor, &info) == 0 || info.dli_fname == nullptr) return {};
  std::error_code ignored;
  return fs::absolute(info.dli_fname, ignored).parent_path();
}

// Folders that may hold NVIDIA's wheels.
std::vector<fs::path> site_packages() {
  std::vector<fs::path> folders;
  fs::path folder = own_folder();
  for (int up = 0; up < 3 && folder.has_relative_path(); ++up) {
    folders.push_back(folder);
    folder = folder.parent_path();
  }
  std::istringstream listed(environment("FUSEDRNN_SITE_PACKAGES"));
  for (std::string item; std::getline(listed, item, ':');) {
    if (!item.empty()) folders.emplace_back(item);
  }
  return folders;
}

// Folders that are searched before the system's loader, and after it.
std::vector<fs::path> folders_before() {
  std::vector<fs::path> folders;
  for (const fs::path& site : site_packages()) {
    folders.push_back(site / "nvidia" / "cu13" / "lib");
    folders.push_back(site / "nvidia" / "cublas" / "lib");  // of CUDA 12
  }
  const std::string conda = environment("CONDA_PREFIX");
  if (!conda.empty()) folders.push_back(fs::path(conda) / "lib");
  return folders;
}

std::vector<fs::path> folders_after() {
  std::vector<fs::path> folders;
  for (const char* name : {"CUDA_HOME", "CUDA_PATH"}) {
    const std::string home = environment(name);
    if (home.empty()) continue;
    folders.push_back(fs::path(home) / "lib64");
    folders.push_back(fs::path(home) / "lib");
  }
  return folders;
}

void* open_in(const std::vector<fs::path>& folders) {
  for (const fs::path& folder : folders) {
    for (const char* name : kNames) {
      const fs::path file = folder / name;
      std::error_code ignored;
      if (!fs::exists(file, ignored)) continue;
      if (void* const library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    }
  }
  return nullptr;
}

void* open_by_name(int mode) {
  for (const char* name : kNames) {
    if (void* const library = dlopen(name, RTLD_NOW | RTLD_LOCAL | mode)) return library;
  }
  return nullptr;
}

void* open_library(std::string& why) {
  const std::string named = environment("FUSEDRNN_CUBLASLT");
  if (!named.empty()) {
    void* const library = dlopen(named.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) why = std::string("FUSEDRNN_CUBLASLT: ") + dlerror();
    return library;
  }
  // Without a driver it could not run; the emulator has none.
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    why = "no CUDA driver";
    return nullptr;
  }
  void* library = open_by_name(RTLD_NOLOAD);
  if (library == nullptr) library = open_in(folders_before());
  if (library == nullptr) library = open_by_name(0);
  if (library == nullptr) library = open_in(folders_after());
  if (library == nullptr) why = "libcublasLt.so was not found";
  return library;
}

// Finds functions, and remembers the first that is missing.
class Symbols {
 public:
  explicit Symbols(void* library) : library_(library) {}

  template <class Function>
  void find(const char* name, Function& function) {
    void* const address = dlsym(library_, name);
    if (address == nullptr && missing_.empty()) missing_ = name;
    function = reinterpret_cast<Function>(address);
  }
  const std::string& missing() const { return missing_; }

 private:
  void* library_;
  std::string missing_;
};

std::string path_of(const void* address) {
  Dl_info info{};
  return dladdr(address, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : "";
}

std::optional<Library> load(std::string& why) {
  void* const handle = open_library(why);
  if (handle == nullptr) return std::nullopt;
  Library library;
  Api& api = library.api;
  Symbols symbols(handle);
  symbols.find("cublasLtGetVersion", api.version);
  symbols.find("cublasLtCreate", api.create);
  symbols.find("cublasLtMatmulDescCreate", api.desc_create);
  symbols.find("cublasLtMatmulDescDestroy", api.desc_destroy);
  symbols.find("cublasLtMatmulDescSetAttribute", api.desc_set);
  symbols.find("cublasLtMatrixLayoutCreate", api.layout_create);
  symbols.find("cublasLtMatrixLayoutDestroy", api.layout_destroy);
  symbols.find("cublasLtMatrixLayoutSetAttribute", api.layout_set);
  symbols.find("cublasLtMatmulPreferenceCreate", api.preference_create);
  symbols.find("cublasLtMatmulPreferenceDestroy", api.preference_destroy);
  symbols.find("cublasLtMatmulPreferenceSetAttribute", api.preference_set);
  symbols.find("cublasLtMatmulAlgoGetHeuristic", api.heuristic);
  symbols.find("cublasLtMatmul", api.matmul);
  if (!symbols.missing().empty()) {
    why = "libcublasLt.so has no " + symbols.missing();
    return std::nullopt;
  }
  library.path = path_of(reinterpret_cast<const void*>(api.matmul));
  return library;
}

}  // namespace

const Library* find(std::string& why) {
  struct Found {
    std::string why;
    std::optional<Library> library;
    Found() : library(load(why)) {}
  };
  static const auto* const found = new Found();
  why = found->why;
  return found->library ? &*found->library : nullptr;
}

}  // namespace fusedrnn::cuda::cublaslt
