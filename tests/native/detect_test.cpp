// The choice of an instruction set, on machines that are not this one and on this one.

#include "cpu/isa/detect.h"

#include <stdlib.h>

#include <fstream>
#include <string>
#include <vector>

#include "check.h"

namespace {

using fusedrnn::cpu::Isa;
using fusedrnn::cpu::isa_name;
using fusedrnn::cpu::Machine;
using fusedrnn::cpu::select_isa;
using fusedrnn::cpu::why_unavailable;

const std::vector<Isa> kEverything = {Isa::scalar, Isa::neon,        Isa::avx2,
                                      Isa::avx512, Isa::avx512_bf16, Isa::amx_bf16};
const std::vector<Isa> kX86 = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16,
                               Isa::amx_bf16};
const std::vector<Isa> kArm = {Isa::scalar, Isa::neon};

// Bit by bit from the manuals, not with the constants under test.
constexpr uint32_t bit(int n) { return uint32_t{1} << n; }
constexpr uint32_t kFma = bit(12), kXsave = bit(26), kOsxsave = bit(27), kAvx = bit(28),
                   kF16c = bit(29);
constexpr uint32_t kAvx2 = bit(5), kF = bit(16), kDq = bit(17), kBw = bit(30), kVl = bit(31);
constexpr uint32_t kVnni = bit(11), kBf16 = bit(5);
constexpr uint32_t kAmxBf16 = bit(22), kAmxTile = bit(24), kAmxInt8 = bit(25);

constexpr Machine kBeforeAvx{};
constexpr Machine kHaswell{
    .leaf1_ecx = kFma | kXsave | kOsxsave | kAvx | kF16c, .leaf7_ebx = kAvx2, .xcr0 = 0x07};
constexpr Machine kSkylakeServer{
    .leaf1_ecx = kHaswell.leaf1_ecx, .leaf7_ebx = kAvx2 | kF | kDq | kBw | kVl, .xcr0 = 0xe7};
constexpr Machine kZen4{.leaf1_ecx = kHaswell.leaf1_ecx,
                        .leaf7_ebx = kSkylakeServer.leaf7_ebx,
                        .leaf7_ecx = kVnni,
                        .leaf7_1_eax = kBf16,
                        .xcr0 = 0xe7};
constexpr Machine kSapphireRapids{.leaf1_ecx = kZen4.leaf1_ecx,
                                  .leaf7_ebx = kZen4.leaf7_ebx,
                                  .leaf7_ecx = kZen4.leaf7_ecx,
                                  .leaf7_edx = kAmxBf16 | kAmxTile | kAmxInt8,
                                  .leaf7_1_eax = kZen4.leaf7_1_eax,
                                  .xcr0 = 0x600e7,
                                  .tiles = true};
constexpr Machine kArmMachine{.neon = true};

Machine without1(Machine machine, uint32_t bits) {
  machine.leaf1_ecx &= ~bits;
  return machine;
}
Machine without7(Machine machine, uint32_t bits) {
  machine.leaf7_ebx &= ~bits;
  return machine;
}
Machine without7_edx(Machine machine, uint32_t bits) {
  machine.leaf7_edx &= ~bits;
  return machine;
}
Machine without_tiles(Machine machine) {
  machine.tiles = false;
  return machine;
}
Machine saving(Machine machine, uint64_t xcr0) {
  machine.xcr0 = xcr0;
  return machine;
}

std::string selected(const char* forced, const std::vector<Isa>& compiled, const Machine& machine) {
  return isa_name(select_isa(forced, compiled, machine));
}

void test_names() {
  CHECK_EQUAL(std::string(isa_name(Isa::scalar)), "scalar");
  CHECK_EQUAL(std::string(isa_name(Isa::neon)), "neon");
  CHECK_EQUAL(std::string(isa_name(Isa::avx2)), "avx2");
  CHECK_EQUAL(std::string(isa_name(Isa::avx512)), "avx512");
  CHECK_EQUAL(std::string(isa_name(Isa::avx512_bf16)), "avx512_bf16");
  CHECK_EQUAL(std::string(isa_name(Isa::amx_bf16)), "amx_bf16");
}

void test_reasons() {
  for (const Machine& machine : {kBeforeAvx, kHaswell, kSkylakeServer, kZen4, kArmMachine}) {
    CHECK_EQUAL(why_unavailable(Isa::scalar, machine), "");
  }
  CHECK_EQUAL(why_unavailable(Isa::neon, kArmMachine), "");
  CHECK_EQUAL(why_unavailable(Isa::avx2, kHaswell), "");
  CHECK_EQUAL(why_unavailable(Isa::avx2, kSkylakeServer), "");
  CHECK_EQUAL(why_unavailable(Isa::avx512, kSkylakeServer), "");

  CHECK_EQUAL(why_unavailable(Isa::neon, kSkylakeServer), "the CPU lacks neon");
  CHECK_EQUAL(why_unavailable(Isa::avx2, kArmMachine), "the CPU lacks avx2");
  CHECK_EQUAL(why_unavailable(Isa::avx512, kArmMachine), "the CPU lacks avx512f");
  CHECK_EQUAL(why_unavailable(Isa::avx2, kBeforeAvx), "the CPU lacks avx2");
  CHECK_EQUAL(why_unavailable(Isa::avx2, without1(kHaswell, kFma)), "the CPU lacks fma");
  CHECK_EQUAL(why_unavailable(Isa::avx2, without1(kHaswell, kF16c)), "the CPU lacks f16c");
  CHECK_EQUAL(why_unavailable(Isa::avx512, kHaswell), "the CPU lacks avx512f");
  // Knights Landing has F alone.
  CHECK_EQUAL(why_unavailable(Isa::avx512, without7(kSkylakeServer, kVl | kBw | kDq)),
              "the CPU lacks avx512vl");
  CHECK_EQUAL(why_unavailable(Isa::avx512, without7(kSkylakeServer, kBw)),
              "the CPU lacks avx512bw");
  CHECK_EQUAL(why_unavailable(Isa::avx512, without7(kSkylakeServer, kDq)),
              "the CPU lacks avx512dq");
  CHECK_EQUAL(why_unavailable(Isa::avx512, without7(kSkylakeServer, kAvx2)), "the CPU lacks avx2");
  CHECK_EQUAL(why_unavailable(Isa::avx512, without1(kSkylakeServer, kFma)), "the CPU lacks fma");

  CHECK_EQUAL(why_unavailable(Isa::avx512_bf16, kZen4), "");
  CHECK_EQUAL(why_unavailable(Isa::avx512_bf16, kSkylakeServer), "the CPU lacks avx512_bf16");
  CHECK_EQUAL(why_unavailable(Isa::avx512_bf16, without7(kZen4, kBw)), "the CPU lacks avx512bw");
  Machine no_vnni = kZen4;
  no_vnni.leaf7_ecx = 0;
  CHECK_EQUAL(why_unavailable(Isa::avx512_bf16, no_vnni), "the CPU lacks avx512_vnni");

  CHECK_EQUAL(why_unavailable(Isa::amx_bf16, kSapphireRapids), "");
  CHECK_EQUAL(why_unavailable(Isa::amx_bf16, kSkylakeServer), "the CPU lacks avx512_bf16");
  CHECK_EQUAL(why_unavailable(Isa::amx_bf16, kZen4), "the CPU lacks amx_tile");
  CHECK_EQUAL(why_unavailable(Isa::amx_bf16, without7(kSapphireRapids, kBw)),
              "the CPU lacks avx512bw");
  CHECK_EQUAL(why_unavailable(Isa::amx_bf16, without7_edx(kSapphireRapids, kAmxTile)),
              "the CPU lacks amx_tile");
  CHECK_EQUAL(why_unavailable(Isa::amx_bf16, without7_edx(kSapphireRapids, kAmxBf16)),
              "the CPU lacks amx_bf16");
  CHECK_EQUAL(why_unavailable(Isa::amx_bf16, without7_edx(kSapphireRapids, kAmxInt8)),
              "the CPU lacks amx_int8");
  CHECK_EQUAL(why_unavailable(Isa::amx_bf16, without_tiles(kSapphireRapids)),
              "the operating system does not grant this process the tile registers");

  const std::string ymm = "the operating system does not save the ymm registers";
  const std::string zmm = "the operating system does not save the zmm registers";
  CHECK_EQUAL(why_unavailable(Isa::avx2, without1(kHaswell, kOsxsave)), ymm);
  for (const uint64_t xcr0 : {0x0, 0x1, 0x3, 0x5}) {
    CHECK_EQUAL(why_unavailable(Isa::avx2, saving(kHaswell, xcr0)), ymm);
  }
  for (const uint64_t xcr0 : {0x07, 0x27, 0x67, 0xa7, 0xc7, 0xe1, 0xe3, 0xe5}) {
    CHECK_EQUAL(why_unavailable(Isa::avx512, saving(kSkylakeServer, xcr0)), zmm);
  }
  CHECK_EQUAL(why_unavailable(Isa::avx512, without1(kSkylakeServer, kOsxsave)), zmm);
  for (const uint64_t xcr0 : {0xe7, 0x200e7, 0x400e7}) {
    CHECK_EQUAL(why_unavailable(Isa::amx_bf16, saving(kSapphireRapids, xcr0)),
                "the operating system does not save the tile registers");
  }
}

void test_choice() {
  for (const char* const unset : {static_cast<const char*>(nullptr), ""}) {
    CHECK_EQUAL(selected(unset, kEverything, kBeforeAvx), "scalar");
    CHECK_EQUAL(selected(unset, kEverything, kHaswell), "avx2");
    CHECK_EQUAL(selected(unset, kEverything, kSkylakeServer), "avx512");
    CHECK_EQUAL(selected(unset, kEverything, kSapphireRapids), "amx_bf16");
    CHECK_EQUAL(selected(unset, kEverything, without_tiles(kSapphireRapids)), "avx512_bf16");
    CHECK_EQUAL(selected(unset, kEverything, kZen4), "avx512_bf16");
    CHECK_EQUAL(selected(unset, kEverything, saving(kSkylakeServer, 0x07)), "avx2");
    CHECK_EQUAL(selected(unset, kEverything, without7(kSkylakeServer, kVl)), "avx2");
    CHECK_EQUAL(selected(unset, kEverything, saving(kSkylakeServer, 0x03)), "scalar");
    CHECK_EQUAL(selected(unset, kEverything, kArmMachine), "neon");
    CHECK_EQUAL(selected(unset, kArm, kArmMachine), "neon");
    CHECK_EQUAL(selected(unset, {Isa::scalar}, kArmMachine), "scalar");
    CHECK_EQUAL(selected(unset, {Isa::scalar}, kSkylakeServer), "scalar");
    CHECK_EQUAL(selected(unset, {Isa::scalar, Isa::avx2}, kSkylakeServer), "avx2");
  }
  for (const Isa isa : kX86) {
    CHECK_EQUAL(selected(isa_name(isa), kX86, kSapphireRapids), isa_name(isa));
  }
  for (const Isa isa : kArm) {
    CHECK_EQUAL(selected(isa_name(isa), kArm, kArmMachine), isa_name(isa));
  }
}

void test_refusals() {
  for (const std::string name : {"foo", "AVX2", "Neon", "avx", "avx512 ", "scalar,avx2"}) {
    CHECK_THROWS(select_isa(name.c_str(), kEverything, kSkylakeServer), FUSEDRNN_UNAVAILABLE,
                 "FUSEDRNN_ISA: expected one of scalar, neon, avx2, avx512, avx512_bf16, amx_bf16, "
                 "got '" +
                     name + "'");
  }
  CHECK_THROWS(select_isa("avx512", kEverything, without7(kSkylakeServer, kVl)),
               FUSEDRNN_UNAVAILABLE,
               "FUSEDRNN_ISA: avx512 cannot run on this machine (the CPU lacks avx512vl); "
               "available: scalar, avx2");
  CHECK_THROWS(select_isa("avx2", kEverything, saving(kHaswell, 0x3)), FUSEDRNN_UNAVAILABLE,
               "FUSEDRNN_ISA: avx2 cannot run on this machine (the operating system does not save "
               "the ymm registers); available: scalar");
  CHECK_THROWS(
      select_isa("avx512", {Isa::scalar}, kSkylakeServer), FUSEDRNN_UNAVAILABLE,
      "FUSEDRNN_ISA: avx512 cannot run on this machine (this build has no kernels for it); "
      "available: scalar");
  CHECK_THROWS(select_isa("amx_bf16", kX86, kZen4), FUSEDRNN_UNAVAILABLE,
               "FUSEDRNN_ISA: amx_bf16 cannot run on this machine (the CPU lacks amx_tile); "
               "available: scalar, avx2, avx512, avx512_bf16");
  CHECK_THROWS(select_isa("amx_bf16", kX86, without_tiles(kSapphireRapids)), FUSEDRNN_UNAVAILABLE,
               "FUSEDRNN_ISA: amx_bf16 cannot run on this machine (the operating system does not "
               "grant this process the tile registers); available: scalar, avx2, avx512, "
               "avx512_bf16");
  CHECK_THROWS(select_isa("avx2", kArm, kArmMachine), FUSEDRNN_UNAVAILABLE,
               "FUSEDRNN_ISA: avx2 cannot run on this machine (this build has no kernels for it); "
               "available: scalar, neon");
  CHECK_THROWS(select_isa("neon", kX86, kSkylakeServer), FUSEDRNN_UNAVAILABLE,
               "FUSEDRNN_ISA: neon cannot run on this machine (this build has no kernels for it); "
               "available: scalar, avx2, avx512");
}

[[maybe_unused]] bool cpuinfo_has(const std::string& flag) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string word; file >> word;) {
    if (word == flag) return true;
  }
  return false;
}

void test_this_machine() {
  const std::vector<Isa> available = fusedrnn::cpu::available_isas();
  CHECK(available.front() == Isa::scalar);
#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
  // The compiler's own detection is the second opinion; it asks the operating system too.
  __builtin_cpu_init();
  std::vector<Isa> expected = {Isa::scalar};
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2) {
    expected.push_back(Isa::avx2);
  }
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
    expected.push_back(Isa::avx512);
    if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni")) {
      expected.push_back(Isa::avx512_bf16);
      // Compilers differ in what they know of AMX; the kernel does not know of the permission.
      if (cpuinfo_has("amx_tile") && cpuinfo_has("amx_bf16") && cpuinfo_has("amx_int8") &&
          fusedrnn::cpu::this_machine().tiles) {
        expected.push_back(Isa::amx_bf16);
      }
    }
  }
  CHECK(available == expected);
#elif defined(__aarch64__)
  CHECK(available == kArm);
#endif

  setenv("FUSEDRNN_ISA", "foo", 1);
  CHECK_THROWS(fusedrnn::cpu::selected_isa(), FUSEDRNN_UNAVAILABLE,
               "FUSEDRNN_ISA: expected one of scalar, neon, avx2, avx512, avx512_bf16, amx_bf16, "
               "got 'foo'");
  setenv("FUSEDRNN_ISA", "scalar", 1);
  CHECK(fusedrnn::cpu::selected_isa() == Isa::scalar);
  unsetenv("FUSEDRNN_ISA");
  CHECK(fusedrnn::cpu::selected_isa() == Isa::scalar);  // read once
}

}  // namespace

// As if a build had them all. What this one has (cpu/isa/units.cpp) is not linked.
std::vector<Isa> fusedrnn::cpu::compiled_isas() { return kEverything; }

int main() {
  test_names();
  test_reasons();
  test_choice();
  test_refusals();
  test_this_machine();
  return check::result();
}
