#include "cuda/gemm/gemm.h"

#include <cstdlib>
#include <map>
#include <mutex>

#include "core/error.h"
#include "cuda/gemm/cublaslt.h"
#include "cuda/gemm/find_cublaslt.h"
#include "cuda/gemm/plain.h"
#include "cuda/runtime/capture_mode.h"

namespace fusedrnn::cuda {
namespace {

// What the environment and the machine leave: null for the plain kernel.
struct Choice {
  const cublaslt::Library* library = nullptr;
  std::string description;
};

std::string version_text(size_t version) {
  // major * 10000 + minor * 100 + patch
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

Choice choose() {
  const char* const text = std::getenv("FUSEDRNN_CUDA_GEMM");
  const std::string asked = text == nullptr ? "" : text;
  if (asked == "plain") return {nullptr, "plain products (FUSEDRNN_CUDA_GEMM)"};
  if (!asked.empty() && asked != "cublaslt") {
    throw Error(FUSEDRNN_INVALID_VALUE,
                "FUSEDRNN_CUDA_GEMM: expected plain or cublaslt, got " + asked);
  }
  std::string why;
  const cublaslt::Library* const library = cublaslt::find(why);
  if (library != nullptr) {
    return {library,
            "cuBLASLt " + version_text(library->api.version()) + " (" + library->path + ")"};
  }
  if (!asked.empty()) throw Error(FUSEDRNN_UNAVAILABLE, "FUSEDRNN_CUDA_GEMM=cublaslt: " + why);
  return {nullptr, "plain products (" + why + ")"};
}

const Choice& choice() {
  static const auto* const chosen = new Choice(choose());
  return *chosen;
}

}  // namespace

Gemm& gemm_of_device(int device) {
  static std::mutex mutex;
  static auto* const gemms = new std::map<int, Gemm*>();
  const std::lock_guard lock(mutex);
  Gemm*& gemm = (*gemms)[device];
  if (gemm == nullptr) {
    const RelaxedCapture relaxed;  // a handle may allocate
    const cublaslt::Library* const library = choice().library;
    gemm = library != nullptr ? static_cast<Gemm*>(new CublasLtGemm(*library)) : new PlainGemm();
  }
  return *gemm;
}

std::string gemm_description() { return choice().description; }

}  // namespace fusedrnn::cuda
