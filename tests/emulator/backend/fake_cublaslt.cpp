// A cuBLASLt for the emulator: the functions that the library calls, computing on the emulator's
// memory. It is stricter than the real one: descriptors must be complete and consistent, alignments
// true, the algorithm that of the very product, and the workspace the caller's own (it is written).

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <list>
#include <mutex>
#include <vector>

#include "emulator.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

enum Status {
  kSuccess = 0,
  kNotInitialized = 1,
  kInvalidValue = 7,
  kExecutionFailed = 13,
  kInternalError = 14,
  kNotSupported = 15
};
enum Type { kFloat = 0, kDouble = 1, kHalf = 2, kBfloat = 14 };
enum Compute { kSums32 = 68, kSums64 = 70, kSumsTf32 = 77 };

constexpr uint64_t kMagic = 0x4655534544524e4e;
constexpr size_t kWorkspace = 4096;        // what every algorithm asks for
constexpr uint64_t kUnsupportedRows = 13;  // a size that has no algorithm, to test the fallback
constexpr uint64_t kRefusedRows = 37;      // one whose algorithm is refused when it is to run

struct Handle {
  uint64_t magic = kMagic;
};
struct Desc {
  int compute, scale, transa = 0, transb = 0;
};
struct Layout {
  int type;
  uint64_t rows, columns;
  int64_t ld;
  int32_t batch = 1;
  int64_t batch_stride = 0;
};
struct Preference {
  uint64_t workspace = 0;
  uint32_t schemes = 7, align_a = 256, align_b = 256, align_c = 256, align_d = 256;
};
struct Algo {
  uint64_t data[8];
};
struct Result {
  Algo algo;
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
};

int refuse(const char* why) {
  std::fprintf(stderr, "fake cuBLASLt: %s\n", why);
  return kInvalidValue;
}

template <class T>
int set(T& field, const void* value, size_t size, const char* name) {
  if (size != sizeof field) return refuse(name);
  std::memcpy(&field, value, size);
  return kSuccess;
}

std::atomic<int64_t> products{0}, terms{0};
std::atomic<bool> cannot_be_asked{false};

// --- numbers ---

size_t item(int type) { return type == kDouble ? 8 : type == kFloat ? 4 : 2; }

float half_value(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
  const float magnitude = exponent == 31 ? (fraction != 0 ? NAN : INFINITY)
                          : exponent == 0
                              ? std::ldexp(static_cast<float>(fraction), -24)
                              : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

double read(const void* data, int type, int64_t i) {
  const char* const p = static_cast<const char*>(data) + i * static_cast<int64_t>(item(type));
  if (type == kDouble) {
    double value;
    std::memcpy(&value, p, sizeof value);
    return value;
  }
  if (type == kFloat) {
    float value;
    std::memcpy(&value, p, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  if (type == kHalf) return half_value(bits);
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

void write(void* data, int type, int64_t i, double number) {
  char* const p = static_cast<char*>(data) + i * static_cast<int64_t>(item(type));
  const auto value = static_cast<float>(number);
  if (type == kDouble) {
    std::memcpy(p, &number, sizeof number);
  } else if (type == kFloat) {
    std::memcpy(p, &value, sizeof value);
  } else {  // bfloat16: nothing of ours writes float16
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (value == value) bits += 0x7fff + (bits >> 16 & 1);
    const auto upper = static_cast<uint16_t>(bits >> 16);
    std::memcpy(p, &upper, sizeof upper);
  }
}

double rounded_to_tf32(double number) {
  const auto value = static_cast<float>(number);
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits = (bits + 0x1000u) & ~0x1fffu;
  float rounded;
  std::memcpy(&rounded, &bits, sizeof rounded);
  return rounded;
}

// --- what is asked for ---

bool supported_types(const Desc& desc, const Layout& a, const Layout& b, const Layout& c,
                     const Layout& d) {
  if (a.type != b.type || c.type != d.type) return false;
  if (desc.compute == kSums64) {
    return desc.scale == kDouble && a.type == kDouble && c.type == kDouble;
  }
  if (desc.scale != kFloat) return false;
  if (desc.compute == kSumsTf32) return a.type == kFloat && c.type == kFloat;
  if (desc.compute != kSums32) return false;
  return (a.type == kFloat && c.type == kFloat) ||
         (a.type == kBfloat && (c.type == kFloat || c.type == kBfloat)) ||
         (a.type == kHalf && c.type == kFloat);
}

struct Sizes {
  uint64_t m, n, k;
};

// D [m,n] = op(A) op(B), all column-major.
bool consistent(const Desc& desc, const Layout& a, const Layout& b, const Layout& c,
                const Layout& d, Sizes& sizes) {
  sizes.m = desc.transa != 0 ? a.columns : a.rows;
  sizes.k = desc.transa != 0 ? a.rows : a.columns;
  sizes.n = desc.transb != 0 ? b.rows : b.columns;
  const uint64_t k = desc.transb != 0 ? b.columns : b.rows;
  for (const Layout* layout : {&a, &b, &c, &d}) {
    if (layout->ld < static_cast<int64_t>(layout->rows) || layout->batch != d.batch) return false;
    if (layout->rows == 0 || layout->columns == 0) return false;
  }
  return k == sizes.k && d.rows == sizes.m && d.columns == sizes.n && c.rows == d.rows &&
         c.columns == d.columns;
}

// What an algorithm is good for, as a number.
uint64_t signature(const Desc& desc, const Layout& a, const Layout& b, const Layout& c,
                   const Layout& d) {
  uint64_t hash = kMagic;
  const auto add = [&hash](uint64_t value) { hash = (hash ^ value) * 0x100000001b3; };
  for (const int value : {desc.compute, desc.scale, desc.transa, desc.transb}) {
    add(static_cast<uint64_t>(value));
  }
  for (const Layout* layout : {&a, &b, &c, &d}) {
    add(static_cast<uint64_t>(layout->type));
    add(layout->rows);
    add(layout->columns);
    add(static_cast<uint64_t>(layout->ld));
    add(static_cast<uint64_t>(layout->batch));
    add(static_cast<uint64_t>(layout->batch_stride));
  }
  return hash;
}

// --- the product, when its turn in the stream comes ---

struct Work {
  Desc desc;
  Layout a, b, d;
  Sizes sizes;
  double alpha, beta;
  const void *a_data, *b_data;
  void* d_data;
  void* workspace;
};

void multiply(void* argument) {
  const Work& w = *static_cast<const Work*>(argument);
  std::memset(w.workspace, 0xff, kWorkspace);
  const bool tf32 = w.desc.compute == kSumsTf32;
  const auto at = [&](const void* data, const Layout& layout, uint64_t row, uint64_t column,
                      int32_t batch) {
    const double value =
        read(data, layout.type,
             batch * layout.batch_stride + static_cast<int64_t>(column) * layout.ld +
                 static_cast<int64_t>(row));
    return tf32 ? rounded_to_tf32(value) : value;
  };
  for (int32_t batch = 0; batch < w.d.batch; ++batch) {
    for (uint64_t j = 0; j < w.sizes.n; ++j) {
      for (uint64_t i = 0; i < w.sizes.m; ++i) {
        const bool in_float = w.desc.compute != kSums64;
        double sum = 0;
        for (uint64_t k = 0; k < w.sizes.k; ++k) {
          const double left =
              w.desc.transa != 0 ? at(w.a_data, w.a, k, i, batch) : at(w.a_data, w.a, i, k, batch);
          const double right =
              w.desc.transb != 0 ? at(w.b_data, w.b, j, k, batch) : at(w.b_data, w.b, k, j, batch);
          sum += left * right;
          if (in_float) sum = static_cast<float>(sum);  // one after the other, as kernels may
        }
        sum *= w.alpha;
        const int64_t place =
            batch * w.d.batch_stride + static_cast<int64_t>(j) * w.d.ld + static_cast<int64_t>(i);
        // As in BLAS: what is not wanted is not read.
        if (w.beta != 0) sum += w.beta * read(w.d_data, w.d.type, place);
        write(w.d_data, w.d.type, place, sum);
      }
    }
  }
}

bool aligned(const void* data, const Layout& layout, uint64_t to) {
  return reinterpret_cast<uintptr_t>(data) % to == 0 &&
         static_cast<uint64_t>(layout.batch_stride) * item(layout.type) % to == 0;
}

}  // namespace

EXPORT size_t cublasLtGetVersion() { return 139901; }

// How many products have been asked for.
EXPORT int64_t fake_cublaslt_products() { return products; }

// And how many multiplications they are.
EXPORT int64_t fake_cublaslt_terms() { return terms; }

// Whether algorithms are asked for in vain, as they may be in captures.
EXPORT void fake_cublaslt_refuse(int refuse) { cannot_be_asked = refuse != 0; }

EXPORT int cublasLtCreate(Handle** handle) {
  *handle = new Handle();
  return kSuccess;
}

EXPORT int cublasLtMatmulDescCreate(Desc** desc, int compute, int scale) {
  *desc = new Desc{compute, scale};
  return kSuccess;
}
EXPORT int cublasLtMatmulDescDestroy(Desc* desc) {
  delete desc;
  return kSuccess;
}
EXPORT int cublasLtMatmulDescSetAttribute(Desc* desc, int attribute, const void* value,
                                          size_t size) {
  if (attribute == 3) return set(desc->transa, value, size, "TRANSA");
  if (attribute == 4) return set(desc->transb, value, size, "TRANSB");
  return refuse("an attribute of a product that is not known");
}

EXPORT int cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows, uint64_t columns,
                                      int64_t ld) {
  *layout = new Layout{type, rows, columns, ld};
  return kSuccess;
}
EXPORT int cublasLtMatrixLayoutDestroy(Layout* layout) {
  delete layout;
  return kSuccess;
}
EXPORT int cublasLtMatrixLayoutSetAttribute(Layout* layout, int attribute, const void* value,
                                            size_t size) {
  if (attribute == 5) return set(layout->batch, value, size, "BATCH_COUNT");
  if (attribute == 6) return set(layout->batch_stride, value, size, "STRIDED_BATCH_OFFSET");
  return refuse("an attribute of a layout that is not known");
}

EXPORT int cublasLtMatmulPreferenceCreate(Preference** preference) {
  *preference = new Preference();
  return kSuccess;
}
EXPORT int cublasLtMatmulPreferenceDestroy(Preference* preference) {
  delete preference;
  return kSuccess;
}
EXPORT int cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute,
                                                const void* value, size_t size) {
  switch (attribute) {
    case 1:
      return set(preference->workspace, value, size, "MAX_WORKSPACE_BYTES");
    case 3:
      return set(preference->schemes, value, size, "REDUCTION_SCHEME_MASK");
    case 5:
      return set(preference->align_a, value, size, "MIN_ALIGNMENT_A_BYTES");
    case 6:
      return set(preference->align_b, value, size, "MIN_ALIGNMENT_B_BYTES");
    case 7:
      return set(preference->align_c, value, size, "MIN_ALIGNMENT_C_BYTES");
    case 8:
      return set(preference->align_d, value, size, "MIN_ALIGNMENT_D_BYTES");
    default:
      return refuse("an attribute of a preference that is not known");
  }
}

EXPORT int cublasLtMatmulAlgoGetHeuristic(Handle* handle, Desc* desc, Layout* a, Layout* b,
                                          Layout* c, Layout* d, Preference* preference, int wanted,
                                          Result* results, int* found) {
  *found = 0;
  Sizes sizes{};
  if (handle->magic != kMagic || wanted < 1) return refuse("no handle or no place for results");
  if (!supported_types(*desc, *a, *b, *c, *d)) return refuse("types that do not go together");
  if (!consistent(*desc, *a, *b, *c, *d, sizes)) return refuse("sizes that do not go together");
  if (preference->schemes != 2) return refuse("reductions in an undetermined order or type");
  if (preference->workspace < kWorkspace) return refuse("no workspace");
  if (sizes.m == kUnsupportedRows) return kNotSupported;
  if (cannot_be_asked) return kInternalError;
  // The real one may allocate when it loads kernels, which a capture forbids if nobody allows it.
  if (emulator_release(emulator_allocate(1)) != 0) return kNotInitialized;
  *results = {};
  results->algo.data[0] = signature(*desc, *a, *b, *c, *d);
  const uint32_t alignments[] = {preference->align_a, preference->align_b, preference->align_c,
                                 preference->align_d};
  for (int i = 0; i < 4; ++i) results->algo.data[1 + i] = alignments[i];
  results->workspace = kWorkspace;
  *found = 1;
  return kSuccess;
}

EXPORT int cublasLtMatmul(Handle* handle, Desc* desc, const void* alpha, const void* a, Layout* la,
                          const void* b, Layout* lb, const void* beta, const void* c, Layout* lc,
                          void* d, Layout* ld, const Algo* algo, void* workspace,
                          size_t workspace_bytes, void* stream) {
  Sizes sizes{};
  if (handle->magic != kMagic) return refuse("no handle");
  if (!consistent(*desc, *la, *lb, *lc, *ld, sizes)) return refuse("sizes");
  if (algo->data[0] != signature(*desc, *la, *lb, *lc, *ld)) return refuse("another's algorithm");
  if (!aligned(a, *la, algo->data[1]) || !aligned(b, *lb, algo->data[2]) ||
      !aligned(c, *lc, algo->data[3]) || !aligned(d, *ld, algo->data[4])) {
    return refuse("less alignment than was promised");
  }
  if (c != d) return refuse("a product that is not in place");
  if (workspace == nullptr || workspace_bytes < kWorkspace ||
      reinterpret_cast<uintptr_t>(workspace) % 256 != 0) {
    return refuse("the workspace");
  }
  if (sizes.m == kRefusedRows) return kNotSupported;
  // Kept for ever: a graph may run it again at any time.
  static std::mutex mutex;
  static std::list<Work> works;
  const std::lock_guard lock(mutex);
  ++products;
  terms += static_cast<int64_t>(sizes.m * sizes.n * sizes.k) * la->batch;
  works.push_back({*desc, *la, *lb, *ld, sizes, read(alpha, desc->scale, 0),
                   read(beta, desc->scale, 0), a, b, d, workspace});
  return emulator_call_on(stream, multiply, &works.back()) == 0 ? kSuccess : kExecutionFailed;
}
