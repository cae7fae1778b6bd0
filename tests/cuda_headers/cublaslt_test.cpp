// Holds csrc/cuda/gemm/cublaslt_api.h to NVIDIA's own header and library, where these are present.
// Descriptors need no GPU: what is set through our declarations is read back through NVIDIA's.
//
//   cmake -S . -B build/cuda -DFUSEDRNN_CUDA=ON -DFUSEDRNN_CUBLASLT_INCLUDE=FOLDER
//   cmake --build build/cuda --target fusedrnn_cublaslt_test
//   fusedrnn_cublaslt_test PATH/libcublasLt.so.13

#include <cublasLt.h>
#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "cuda/gemm/cublaslt_api.h"

namespace ours = fusedrnn::cuda::cublaslt;

namespace {

template <class Ours, class Theirs>
constexpr bool same(Ours a, Theirs b) {
  return static_cast<int64_t>(a) == static_cast<int64_t>(b);
}

static_assert(same(ours::kSuccess, CUBLAS_STATUS_SUCCESS));
static_assert(same(ours::kNotSupported, CUBLAS_STATUS_NOT_SUPPORTED));
static_assert(same(ours::kR32F, CUDA_R_32F) && same(ours::kR64F, CUDA_R_64F));
static_assert(same(ours::kR16F, CUDA_R_16F) && same(ours::kR16BF, CUDA_R_16BF));
static_assert(same(ours::k32F, CUBLAS_COMPUTE_32F) && same(ours::k64F, CUBLAS_COMPUTE_64F));
static_assert(same(ours::k32FFastTF32, CUBLAS_COMPUTE_32F_FAST_TF32));
static_assert(same(ours::kN, CUBLAS_OP_N) && same(ours::kT, CUBLAS_OP_T));
static_assert(same(ours::kTransA, CUBLASLT_MATMUL_DESC_TRANSA));
static_assert(same(ours::kTransB, CUBLASLT_MATMUL_DESC_TRANSB));
static_assert(same(ours::kBatchCount, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT));
static_assert(same(ours::kStridedBatchOffset, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET));
static_assert(same(ours::kMaxWorkspaceBytes, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES));
static_assert(same(ours::kReductionSchemeMask, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK));
static_assert(same(ours::kReductionComputeType, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
static_assert(same(ours::kMinAlignmentA, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES));
static_assert(same(ours::kMinAlignmentB, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES));
static_assert(same(ours::kMinAlignmentC, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES));
static_assert(same(ours::kMinAlignmentD, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES));

using TheirResult = cublasLtMatmulHeuristicResult_t;
static_assert(sizeof(ours::Algo) == sizeof(cublasLtMatmulAlgo_t));
static_assert(sizeof(ours::HeuristicResult) == sizeof(TheirResult));
static_assert(offsetof(ours::HeuristicResult, workspace_bytes) ==
              offsetof(TheirResult, workspaceSize));
static_assert(offsetof(ours::HeuristicResult, state) == offsetof(TheirResult, state));
static_assert(offsetof(ours::HeuristicResult, waves) == offsetof(TheirResult, wavesCount));

int failures = 0;

void expect(bool right, const char* what) {
  if (right) return;
  std::fprintf(stderr, "not as in NVIDIA's library: %s\n", what);
  ++failures;
}

template <class Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  expect(function != nullptr, name);
}

// An attribute as their function reads it.
template <class Value, class Get, class Object, class Attribute>
Value read(Get get, Object object, Attribute attribute) {
  Value value{};
  size_t written = 0;
  const bool read = get(object, attribute, &value, sizeof value, &written) == 0;
  expect(read && written == sizeof value, "an attribute's size");
  return value;
}

void test_products(void* library, const ours::Api& api) {
  decltype(&cublasLtMatmulDescGetAttribute) get = nullptr;
  find(library, "cublasLtMatmulDescGetAttribute", get);
  ours::MatmulDesc desc = nullptr;
  expect(api.desc_create(&desc, ours::k32FFastTF32, ours::kR32F) == 0, "a product");
  const int32_t transposed = ours::kT;
  expect(api.desc_set(desc, ours::kTransB, &transposed, sizeof transposed) == 0, "TRANSB");
  auto* const theirs = reinterpret_cast<cublasLtMatmulDesc_t>(desc);
  expect(read<int32_t>(get, theirs, CUBLASLT_MATMUL_DESC_TRANSA) == CUBLAS_OP_N, "TRANSA");
  expect(read<int32_t>(get, theirs, CUBLASLT_MATMUL_DESC_TRANSB) == CUBLAS_OP_T, "TRANSB");
  expect(
      read<int32_t>(get, theirs, CUBLASLT_MATMUL_DESC_COMPUTE_TYPE) == CUBLAS_COMPUTE_32F_FAST_TF32,
      "COMPUTE_TYPE");
  expect(api.desc_destroy(desc) == 0, "the end of a product");
}

void test_layouts(void* library, const ours::Api& api) {
  decltype(&cublasLtMatrixLayoutGetAttribute) get = nullptr;
  find(library, "cublasLtMatrixLayoutGetAttribute", get);
  ours::MatrixLayout layout = nullptr;
  expect(api.layout_create(&layout, ours::kR16BF, 48, 7, 56) == 0, "a layout");
  const int32_t count = 3;
  const int64_t offset = 400;
  expect(api.layout_set(layout, ours::kBatchCount, &count, sizeof count) == 0, "BATCH_COUNT");
  expect(api.layout_set(layout, ours::kStridedBatchOffset, &offset, sizeof offset) == 0,
         "STRIDED_BATCH_OFFSET");
  auto* const theirs = reinterpret_cast<cublasLtMatrixLayout_t>(layout);
  expect(read<uint32_t>(get, theirs, CUBLASLT_MATRIX_LAYOUT_TYPE) == CUDA_R_16BF, "TYPE");
  expect(read<uint64_t>(get, theirs, CUBLASLT_MATRIX_LAYOUT_ROWS) == 48, "ROWS");
  expect(read<uint64_t>(get, theirs, CUBLASLT_MATRIX_LAYOUT_COLS) == 7, "COLS");
  expect(read<int64_t>(get, theirs, CUBLASLT_MATRIX_LAYOUT_LD) == 56, "LD");
  expect(read<int32_t>(get, theirs, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT) == 3, "BATCH_COUNT");
  expect(read<int64_t>(get, theirs, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET) == 400,
         "STRIDED_BATCH_OFFSET");
  expect(api.layout_destroy(layout) == 0, "the end of a layout");
}

void test_preferences(void* library, const ours::Api& api) {
  decltype(&cublasLtMatmulPreferenceGetAttribute) get = nullptr;
  find(library, "cublasLtMatmulPreferenceGetAttribute", get);
  ours::Preference preference = nullptr;
  expect(api.preference_create(&preference) == 0, "a preference");
  const auto set = [&](ours::PreferenceAttribute attribute, auto value) {
    expect(api.preference_set(preference, attribute, &value, sizeof value) == 0, "a preference");
  };
  set(ours::kMaxWorkspaceBytes, uint64_t{1} << 25);
  set(ours::kReductionSchemeMask, ours::kReductionComputeType);
  uint32_t alignment = 2;
  for (const auto attribute :
       {ours::kMinAlignmentA, ours::kMinAlignmentB, ours::kMinAlignmentC, ours::kMinAlignmentD}) {
    set(attribute, alignment *= 2);
  }
  auto* const theirs = reinterpret_cast<cublasLtMatmulPreference_t>(preference);
  expect(read<uint64_t>(get, theirs, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) == 1u << 25,
         "MAX_WORKSPACE_BYTES");
  expect(read<uint32_t>(get, theirs, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) ==
             CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE,
         "REDUCTION_SCHEME_MASK");
  alignment = 2;
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    alignment *= 2;
    expect(read<uint32_t>(get, theirs, attribute) == alignment, "MIN_ALIGNMENT");
  }
  expect(api.preference_destroy(preference) == 0, "the end of a preference");
}

}  // namespace

int main(int argc, char** argv) {
  void* const library = dlopen(argc > 1 ? argv[1] : "libcublasLt.so.13", RTLD_NOW);
  if (library == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 2;
  }
  ours::Api api{};
  find(library, "cublasLtGetVersion", api.version);
  find(library, "cublasLtMatmulDescCreate", api.desc_create);
  find(library, "cublasLtMatmulDescDestroy", api.desc_destroy);
  find(library, "cublasLtMatmulDescSetAttribute", api.desc_set);
  find(library, "cublasLtMatrixLayoutCreate", api.layout_create);
  find(library, "cublasLtMatrixLayoutDestroy", api.layout_destroy);
  find(library, "cublasLtMatrixLayoutSetAttribute", api.layout_set);
  find(library, "cublasLtMatmulPreferenceCreate", api.preference_create);
  find(library, "cublasLtMatmulPreferenceDestroy", api.preference_destroy);
  find(library, "cublasLtMatmulPreferenceSetAttribute", api.preference_set);
  if (failures != 0) return 1;
  test_products(library, api);
  test_layouts(library, api);
  test_preferences(library, api);
  if (failures == 0) std::printf("cuBLASLt %zu: as declared\n", api.version());
  return failures == 0 ? 0 : 1;
}
