#include "cuda/gemm/gemm.h"

#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>

#include "core/error.h"
#include "core/tensor.h"
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
  bool is_asked_for = false;  // the plain kernel
};

std::string version_text(size_t version) {
  // major * 10000 + minor * 100 + patch
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

Choice choose() {
  const char* const text = std::getenv("FUSEDRNN_CUDA_GEMM");
  const std::string asked = text == nullptr ? "" : text;
  if (asked == "plain") return {nullptr, "plain products (FUSEDRNN_CUDA_GEMM)", true};
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

// What the plain kernel computed in the place of cuBLASLt.
class PlainRecord {
 public:
  void add(const Product& product, const char* why) {
    count_.fetch_add(1, std::memory_order_relaxed);
    const std::lock_guard lock(mutex_);
    latest_ = product;
    why_ = why;
  }

  int64_t count() const { return count_.load(std::memory_order_relaxed); }

  // Empty where there is nothing to tell.
  std::string text() const {
    if (count() == 0) return "";
    const std::lock_guard lock(mutex_);
    const Product& p = latest_;
    return "; " + std::to_string(count()) + " products by the plain kernel instead, the latest [" +
           std::to_string(p.m) + "," + std::to_string(p.k) + "] x [" + std::to_string(p.k) + "," +
           std::to_string(p.n) + "] of " + dtype_name(p.operand) + ": " + why_;
  }

 private:
  std::atomic<int64_t> count_{0};
  mutable std::mutex mutex_;
  Product latest_;
  const char* why_ = "";
};

PlainRecord& plain_record() {
  static auto* const record = new PlainRecord();
  return *record;
}

// Where cuBLASLt was not found.
class PlainForWant final : public Gemm {
 public:
  size_t workspace_bytes() const override { return 0; }
  void run(const Product& product, void* workspace, cudaStream_t stream) override {
    note_plain_product(product, "no cuBLASLt");
    plain_.run(product, workspace, stream);
  }

 private:
  PlainGemm plain_;
};

Gemm* new_gemm() {
  if (choice().library != nullptr) return new CublasLtGemm(*choice().library);
  if (choice().is_asked_for) return new PlainGemm();
  return new PlainForWant();
}

}  // namespace

Gemm& gemm_of_device(int device) {
  static std::mutex mutex;
  static auto* const gemms = new std::map<int, Gemm*>();
  const std::lock_guard lock(mutex);
  Gemm*& gemm = (*gemms)[device];
  if (gemm == nullptr) {
    const RelaxedCapture relaxed;  // a handle may allocate
    gemm = new_gemm();
  }
  return *gemm;
}

std::string gemm_description() { return choice().description + plain_record().text(); }

void note_plain_product(const Product& product, const char* why) {
  plain_record().add(product, why);
}

int64_t plain_products() { return plain_record().count(); }

}  // namespace fusedrnn::cuda
