// Products by cuBLASLt.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "cuda/gemm/find_cublaslt.h"
#include "cuda/gemm/gemm.h"
#include "cuda/gemm/plain.h"

namespace fusedrnn::cuda {

class CublasLtGemm final : public Gemm {
 public:
  // For the current device. Throws where cuBLASLt cannot be used on it.
  explicit CublasLtGemm(const cublaslt::Library& library);

  size_t workspace_bytes() const override;
  void run(const Product& product, void* workspace, cudaStream_t stream) override;

 private:
  struct Plan;

  void multiply(const Product& product, void* workspace, cudaStream_t stream);
  std::shared_ptr<const Plan> plan_of(const Product& product);
  std::shared_ptr<const Plan> make_plan(const Product& product) const;

  const cublaslt::Api& api_;
  cublaslt::Handle handle_ = nullptr;
  PlainGemm plain_;  // for what cuBLASLt has no kernel for
  std::mutex mutex_;
  std::unordered_map<std::string, std::shared_ptr<const Plan>> plans_;
};

}  // namespace fusedrnn::cuda
