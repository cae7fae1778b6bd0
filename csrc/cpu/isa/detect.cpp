#include "cpu/isa/detect.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <iterator>
#include <string_view>

#include "core/error.h"

#if defined(__x86_64__) || defined(__i386__)
#define FUSEDRNN_X86 1
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#ifdef FUSEDRNN_AMX_EMULATED
#include "amx_emulator.h"
#endif

namespace fusedrnn::cpu {

namespace {

// Bits as in Intel SDM, volume 2, CPUID, and volume 1, 13.3 (XCR0). AMD's are the same.
constexpr uint32_t kFma = 1u << 12, kOsxsave = 1u << 27, kF16c = 1u << 29;  // leaf 1, ecx
constexpr uint32_t kAvx2 = 1u << 5, kAvx512f = 1u << 16, kAvx512dq = 1u << 17, kAvx512bw = 1u << 30,
                   kAvx512vl = 1u << 31;                                           // leaf 7, ebx
constexpr uint32_t kAvx512vnni = 1u << 11;                                         // leaf 7, ecx
constexpr uint32_t kAmxBf16 = 1u << 22, kAmxTile = 1u << 24, kAmxInt8 = 1u << 25;  // leaf 7, edx
constexpr uint32_t kAvx512bf16 = 1u << 5;  // leaf 7, subleaf 1, eax
constexpr uint64_t kSaveYmm = 0x06;        // XMM and the upper halves of YMM
constexpr uint64_t kSaveZmm = 0xe6;        // and the mask registers and both parts of ZMM
constexpr uint64_t kSaveTiles = 0x60000;   // the tiles and their configuration

struct Feature {
  const char* name;
  uint32_t Machine::* word;
  uint32_t bit;
};

// avx512 begins with what compilers take -mavx512f to include.
constexpr Feature kFeaturesOfAvx2[] = {
    {"avx2", &Machine::leaf7_ebx, kAvx2},
    {"fma", &Machine::leaf1_ecx, kFma},
    {"f16c", &Machine::leaf1_ecx, kF16c},
};
constexpr Feature kFeaturesOfAvx512[] = {
    {"avx512f", &Machine::leaf7_ebx, kAvx512f},   {"avx512vl", &Machine::leaf7_ebx, kAvx512vl},
    {"avx512bw", &Machine::leaf7_ebx, kAvx512bw}, {"avx512dq", &Machine::leaf7_ebx, kAvx512dq},
    {"avx2", &Machine::leaf7_ebx, kAvx2},         {"fma", &Machine::leaf1_ecx, kFma},
    {"f16c", &Machine::leaf1_ecx, kF16c},
};

// Beyond avx512. Every CPU with bfloat16 products has integer ones.
constexpr Feature kFeaturesOfAvx512Bf16[] = {
    {"avx512_bf16", &Machine::leaf7_1_eax, kAvx512bf16},
    {"avx512_vnni", &Machine::leaf7_ecx, kAvx512vnni},
};

// Beyond avx512_bf16. Every CPU with tiles multiplies 8 bits in them.
constexpr Feature kFeaturesOfAmxBf16[] = {
    {"amx_tile", &Machine::leaf7_edx, kAmxTile},
    {"amx_bf16", &Machine::leaf7_edx, kAmxBf16},
    {"amx_int8", &Machine::leaf7_edx, kAmxInt8},
};

template <size_t n>
std::string why_unavailable(const Feature (&features)[n], uint64_t registers, const char* what,
                            const Machine& machine) {
  for (const Feature& feature : features) {
    if ((machine.*feature.word & feature.bit) == 0) {
      return std::string("the CPU lacks ") + feature.name;
    }
  }
  if ((machine.leaf1_ecx & kOsxsave) == 0 || (machine.xcr0 & registers) != registers) {
    return std::string("the operating system does not save the ") + what + " registers";
  }
  return "";
}

constexpr Isa kAll[] = {Isa::scalar, Isa::neon,        Isa::avx2,
                        Isa::avx512, Isa::avx512_bf16, Isa::amx_bf16};

#ifdef __x86_64__
// Linux leaves room for the tiles, 8 KB a thread, only where a process has asked for it. True where
// all its threads may use them from now on.
bool request_tiles([[maybe_unused]] const Machine& machine) {
#if defined(__linux__)
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return (machine.leaf7_edx & kAmxTile) != 0 && (machine.xcr0 & kSaveTiles) == kSaveTiles &&
         syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}
#endif

std::vector<Isa> available_of(const std::vector<Isa>& compiled, const Machine& machine) {
  std::vector<Isa> available;
  std::copy_if(compiled.begin(), compiled.end(), std::back_inserter(available),
               [&](Isa isa) { return why_unavailable(isa, machine).empty(); });
  return available;
}

template <class List>
std::string names(const List& isas) {
  std::string out;
  for (const Isa isa : isas) {
    out += (out.empty() ? "" : ", ") + std::string(isa_name(isa));
  }
  return out;
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return "scalar";
    case Isa::neon:
      return "neon";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::avx512_bf16:
      return "avx512_bf16";
    case Isa::amx_bf16:
      return "amx_bf16";
  }
  return "unknown";
}

Machine this_machine() {
  Machine machine;
#ifdef FUSEDRNN_X86
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0) {
    machine.leaf1_ecx = ecx;
  }
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0) {
    machine.leaf7_ebx = ebx;
    machine.leaf7_ecx = ecx;
    machine.leaf7_edx = edx;
  }
  if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0) {
    machine.leaf7_1_eax = eax;
  }
  if ((machine.leaf1_ecx & kOsxsave) != 0) {
    // As text: the intrinsic wants a compiler flag that this file must not have. Faults without
    // OSXSAVE.
    uint32_t low = 0, high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    machine.xcr0 = uint64_t{high} << 32 | low;
  }
  machine.tiles = request_tiles(machine);
#ifdef FUSEDRNN_AMX_EMULATED
  // Where there is no AMX. The emulator is written in AVX-512.
  if (!machine.tiles && why_unavailable(Isa::avx512, machine).empty()) {
    amx_emulator::install();
    machine.leaf7_edx |= kAmxTile | kAmxBf16 | kAmxInt8;
    machine.xcr0 |= kSaveTiles;
    machine.tiles = true;
  }
#endif
#endif
#ifdef __aarch64__
  machine.neon = true;
#endif
  return machine;
}

std::string why_unavailable(Isa isa, const Machine& machine) {
  switch (isa) {
    case Isa::scalar:
      return "";
    case Isa::neon:
      return machine.neon ? "" : "the CPU lacks neon";
    case Isa::avx2:
      return why_unavailable(kFeaturesOfAvx2, kSaveYmm, "ymm", machine);
    case Isa::avx512:
      return why_unavailable(kFeaturesOfAvx512, kSaveZmm, "zmm", machine);
    case Isa::avx512_bf16: {
      const std::string why = why_unavailable(Isa::avx512, machine);
      return why.empty() ? why_unavailable(kFeaturesOfAvx512Bf16, kSaveZmm, "zmm", machine) : why;
    }
    case Isa::amx_bf16: {
      std::string why = why_unavailable(Isa::avx512_bf16, machine);
      if (why.empty()) why = why_unavailable(kFeaturesOfAmxBf16, kSaveTiles, "tile", machine);
      if (!why.empty() || machine.tiles) return why;
      return "the operating system does not grant this process the tile registers";
    }
  }
  return "unknown instruction set";
}

std::vector<Isa> available_isas() { return available_of(compiled_isas(), this_machine()); }

Isa select_isa(const char* forced, const std::vector<Isa>& compiled, const Machine& machine) {
  const std::vector<Isa> available = available_of(compiled, machine);
  if (forced == nullptr || *forced == '\0') {
    return available.back();
  }
  const auto* const isa = std::find_if(std::begin(kAll), std::end(kAll), [&](Isa candidate) {
    return std::string_view(forced) == isa_name(candidate);
  });
  if (isa == std::end(kAll)) {
    throw Error(FUSEDRNN_UNAVAILABLE, "FUSEDRNN_ISA: expected one of " + names(kAll) + ", got '" +
                                          std::string(forced) + "'");
  }
  const bool built = std::find(compiled.begin(), compiled.end(), *isa) != compiled.end();
  const std::string why =
      built ? why_unavailable(*isa, machine) : "this build has no kernels for it";
  if (!why.empty()) {
    throw Error(FUSEDRNN_UNAVAILABLE, std::string("FUSEDRNN_ISA: ") + forced +
                                          " cannot run on this machine (" + why +
                                          "); available: " + names(available));
  }
  return *isa;
}

Isa selected_isa() {
  // An atomic rather than static initialisation, whose lock a fork could copy while it is held.
  static std::atomic<int> selected{-1};
  int isa = selected.load(std::memory_order_relaxed);
  if (isa < 0) {
    isa =
        static_cast<int>(select_isa(std::getenv("FUSEDRNN_ISA"), compiled_isas(), this_machine()));
    selected.store(isa, std::memory_order_relaxed);
  }
  return static_cast<Isa>(isa);
}

}  // namespace fusedrnn::cpu
