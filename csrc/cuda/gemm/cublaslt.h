// Products by cuBLASLt.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
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
  struct Known;
  // All that a plan depends on.
  using Key = std::array<int64_t, 19>;
  struct Hash {
    size_t operator()(const Key& key) const;
  };

  void multiply(const Product& product, void* workspace, cudaStream_t stream);
  std::shared_ptr<const Plan> plan_of(const Product& product);
  std::shared_ptr<const Plan> shared_plan_of(const Product& product, const Key& key);
  static Key key_of(const Product& product);
  std::shared_ptr<const Plan> make_plan(const Product& product) const;

  const cublaslt::Api& api_;
  cublaslt::Handle handle_ = nullptr;
  PlainGemm plain_;  // for what cuBLASLt has no kernel for
  std::mutex mutex_;
  std::unordered_map<Key, std::shared_ptr<const Plan>, Hash> plans_;
};

}  // namespace fusedrnn::cuda
