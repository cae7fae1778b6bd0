// Everything of ours is row-major, everything of cuBLASLt's column-major: it is asked for the
// transposed product, c^T = b^T a^T, and reads our rows as its columns. So its A is our b.
#include "cuda/gemm/cublaslt.h"

#include <algorithm>

#include "core/error.h"

namespace fusedrnn::cuda {
namespace {

using namespace cublaslt;

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what NVIDIA recommends for Hopper
constexpr size_t kMostPlans = 2048;

// Its kernels for float32 may add up all terms one after the other, with an error that grows as the
// root of their number: 1.1e-6 for 4,096, 5e-6 for 65,536, measured on sums of random numbers. More
// than kLongestSum of them are taken in blocks, which meet in c. Those for tensor cores are less
// exact than that anyhow.
constexpr int64_t kLongestSum = 8192;
constexpr int64_t kSumBlock = 4096;

void require(Status status, const char* what) {
  if (status == kSuccess) return;
  throw Error(FUSEDRNN_INTERNAL, std::string(what) + ": status " + std::to_string(status));
}

DataType data_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::float64:
      return kR64F;
    case Dtype::bfloat16:
      return kR16BF;
    case Dtype::float16:
      return kR16F;
    default:
      return kR32F;
  }
}

// The power of two, up to 16, that an address and the strides from it are multiples of: what
// kernels with wide loads ask for.
uint32_t alignment_of(const void* data, int64_t batch_stride, Dtype dtype) {
  const auto item = static_cast<uint64_t>(dtype == Dtype::float64   ? 8
                                          : dtype == Dtype::float32 ? 4
                                                                    : 2);
  const uint64_t bits = static_cast<uint64_t>(reinterpret_cast<uintptr_t>(data)) |
                        static_cast<uint64_t>(batch_stride) * item | 16;
  return static_cast<uint32_t>(bits & -bits);
}

struct Alignments {
  uint32_t a, b, c;
};

Alignments alignments_of(const Product& p) {
  return {alignment_of(p.a.data, p.a.batch_stride, p.operand),
          alignment_of(p.b.data, p.b.batch_stride, p.operand),
          alignment_of(p.c.data, p.c.batch_stride, p.result)};
}

// A descriptor that is destroyed with its owner.
template <class T>
class Owned {
 public:
  explicit Owned(Status (*destroy)(T)) : destroy_(destroy) {}
  ~Owned() {
    if (value_ != nullptr) destroy_(value_);
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  T get() const { return value_; }
  T* address() { return &value_; }

 private:
  Status (*destroy_)(T);
  T value_ = nullptr;
};

}  // namespace

CublasLtGemm::Key CublasLtGemm::key_of(const Product& p) {
  const Alignments alignments = alignments_of(p);
  return {p.m,
          p.n,
          p.k,
          p.batch,
          p.a.stride,
          p.a.transposed,
          p.a.batch_stride,
          p.b.stride,
          p.b.transposed,
          p.b.batch_stride,
          p.c.stride,
          p.c.batch_stride,
          static_cast<int64_t>(p.operand),
          static_cast<int64_t>(p.result),
          p.tfloat32,
          p.accumulate,
          alignments.a,
          alignments.b,
          alignments.c};
}

size_t CublasLtGemm::Hash::operator()(const Key& key) const {
  uint64_t hash = 0;
  for (const int64_t field : key) {
    hash = (hash ^ static_cast<uint64_t>(field)) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 32;
  }
  return hash;
}

struct CublasLtGemm::Plan {
  explicit Plan(const Api& api)
      : desc(api.desc_destroy),
        a(api.layout_destroy),
        b(api.layout_destroy),
        c(api.layout_destroy) {}

  Owned<MatmulDesc> desc;
  Owned<MatrixLayout> a, b, c;  // cuBLASLt's A, B and both C and D
  Algo algo{};
  bool possible = false;
  // Whether the answer holds for later calls. Some versions of cuBLASLt cannot be asked during a
  // capture: that call is computed by the plain kernel, and the next one asks again.
  bool lasting = true;
};

// The plans that a thread used last: the products of a step come again at the next one, and are
// found here without a lock.
struct CublasLtGemm::Known {
  const CublasLtGemm* owner = nullptr;
  Key key{};
  std::shared_ptr<const Plan> plan;
};

namespace {

// Rows of n elements in our sense: columns of n in cuBLASLt's.
struct Rows {
  int64_t n, rows, stride, batch_stride;
};

void make_layout(const Api& api, const Rows& rows, int64_t batch, Dtype dtype,
                 Owned<MatrixLayout>& layout) {
  require(api.layout_create(layout.address(), data_type(dtype), static_cast<uint64_t>(rows.n),
                            static_cast<uint64_t>(rows.rows), rows.stride),
          "cublasLtMatrixLayoutCreate");
  if (batch == 1) return;
  const auto count = static_cast<int32_t>(batch);
  require(api.layout_set(layout.get(), kBatchCount, &count, sizeof count), "BATCH_COUNT");
  require(api.layout_set(layout.get(), kStridedBatchOffset, &rows.batch_stride,
                         sizeof rows.batch_stride),
          "STRIDED_BATCH_OFFSET");
}

// An operand of m rows of n, or stored as its transpose.
Rows rows_of(const Operand& operand, int64_t m, int64_t n) {
  if (operand.transposed) std::swap(m, n);
  return {n, m, operand.stride, operand.batch_stride};
}

void set_preference(const Api& api, Preference preference, const Product& p) {
  const auto set = [&](PreferenceAttribute attribute, auto value) {
    require(api.preference_set(preference, attribute, &value, sizeof value),
            "cublasLtMatmulPreferenceSetAttribute");
  };
  const Alignments alignments = alignments_of(p);
  set(kMaxWorkspaceBytes, uint64_t{kWorkspaceBytes});
  set(kReductionSchemeMask, kReductionComputeType);
  set(kMinAlignmentA, alignments.b);
  set(kMinAlignmentB, alignments.a);
  set(kMinAlignmentC, alignments.c);
  set(kMinAlignmentD, alignments.c);
}

void set_operation(const Api& api, MatmulDesc desc, MatmulDescAttribute which,
                   const Operand& operand) {
  const int32_t operation = operand.transposed ? kT : kN;
  require(api.desc_set(desc, which, &operation, sizeof operation),
          "cublasLtMatmulDescSetAttribute");
}

}  // namespace

CublasLtGemm::CublasLtGemm(const Library& library) : api_(library.api) {
  require(api_.create(&handle_), "cublasLtCreate");
}

size_t CublasLtGemm::workspace_bytes() const { return kWorkspaceBytes; }

void CublasLtGemm::run(const Product& p, void* workspace, cudaStream_t stream) {
  if (p.operand == Dtype::dual32 || p.operand == Dtype::dual64) {  // it does not know these
    return plain_.run(p, nullptr, stream);
  }
  const bool exact = p.operand == Dtype::float32 && !p.tfloat32;
  if (!exact || p.k <= kLongestSum) return multiply(p, workspace, stream);
  for (int64_t first = 0; first < p.k; first += kSumBlock) {
    Product block = p;
    block.k = std::min(kSumBlock, p.k - first);
    block.a.data = static_cast<const float*>(p.a.data) + first * (p.a.transposed ? p.a.stride : 1);
    block.b.data = static_cast<const float*>(p.b.data) + first * (p.b.transposed ? 1 : p.b.stride);
    block.accumulate = p.accumulate || first > 0;
    multiply(block, workspace, stream);
  }
}

void CublasLtGemm::multiply(const Product& p, void* workspace, cudaStream_t stream) {
  const std::shared_ptr<const Plan> plan = plan_of(p);
  if (!plan->possible) {
    note_plain_product(p, plan->lasting ? "cuBLASLt has no algorithm"
                                        : "cuBLASLt could not be asked for an algorithm");
    plain_.run(p, nullptr, stream);
    return;
  }
  const float one = 1, zero = 0;
  const double one_64 = 1, zero_64 = 0;
  const bool wide = p.operand == Dtype::float64;
  const void* const alpha = wide ? static_cast<const void*>(&one_64) : &one;
  const void* const beta = p.accumulate ? alpha : wide ? static_cast<const void*>(&zero_64) : &zero;
  const Status status =
      api_.matmul(handle_, plan->desc.get(), alpha, p.b.data, plan->a.get(), p.a.data,
                  plan->b.get(), beta, p.c.data, plan->c.get(), p.c.data, plan->c.get(),
                  &plan->algo, workspace, kWorkspaceBytes, stream);
  if (status == kNotSupported) {  // an algorithm that was offered may still be refused
    note_plain_product(p, "cuBLASLt refused its algorithm");
    plain_.run(p, nullptr, stream);
    return;
  }
  require(status, "cublasLtMatmul");
}

std::shared_ptr<const CublasLtGemm::Plan> CublasLtGemm::plan_of(const Product& product) {
  constexpr size_t kMostKnown = 8;  // a power of two
  thread_local Known known[kMostKnown];
  const Key key = key_of(product);
  Known& place = known[Hash{}(key) % kMostKnown];
  if (place.owner == this && place.key == key) return place.plan;
  std::shared_ptr<const Plan> plan = shared_plan_of(product, key);
  if (plan->lasting) place = {this, key, plan};
  return plan;
}

std::shared_ptr<const CublasLtGemm::Plan> CublasLtGemm::shared_plan_of(const Product& product,
                                                                       const Key& key) {
  const std::lock_guard lock(mutex_);
  const auto found = plans_.find(key);
  if (found != plans_.end()) return found->second;
  if (plans_.size() == kMostPlans) plans_.clear();  // calls that run hold on to theirs
  std::shared_ptr<const Plan> plan = make_plan(product);
  if (plan->lasting) plans_[key] = plan;
  return plan;
}

std::shared_ptr<const CublasLtGemm::Plan> CublasLtGemm::make_plan(const Product& p) const {
  auto plan = std::make_shared<Plan>(api_);
  // Sizes beyond int32 are beyond most of its kernels.
  constexpr int64_t kLargest = (int64_t{1} << 31) - 1;
  if (std::max({p.m, p.n, p.k, p.batch}) > kLargest) return plan;

  const bool wide = p.operand == Dtype::float64;
  require(api_.desc_create(plan->desc.address(),
                           wide         ? k64F
                           : p.tfloat32 ? k32FFastTF32
                                        : k32F,
                           wide ? kR64F : kR32F),
          "cublasLtMatmulDescCreate");
  set_operation(api_, plan->desc.get(), kTransA, p.b);
  set_operation(api_, plan->desc.get(), kTransB, p.a);
  make_layout(api_, rows_of(p.b, p.k, p.n), p.batch, p.operand, plan->a);
  make_layout(api_, rows_of(p.a, p.m, p.k), p.batch, p.operand, plan->b);
  make_layout(api_, {p.n, p.m, p.c.stride, p.c.batch_stride}, p.batch, p.result, plan->c);

  Owned<Preference> preference(api_.preference_destroy);
  require(api_.preference_create(preference.address()), "cublasLtMatmulPreferenceCreate");
  set_preference(api_, preference.get(), p);
  HeuristicResult result{};
  int found = 0;
  const Status status =
      api_.heuristic(handle_, plan->desc.get(), plan->a.get(), plan->b.get(), plan->c.get(),
                     plan->c.get(), preference.get(), 1, &result, &found);
  plan->possible = status == kSuccess && found > 0 && result.state == kSuccess;
  plan->lasting = status == kSuccess || status == kNotSupported;
  plan->algo = result.algo;
  return plan;
}

}  // namespace fusedrnn::cuda
