// Which instruction sets the kernels can use here, and which one they do use.
//
// Adding one: a value below (slowest first), its name and what it needs in detect.cpp, and its line
// in cmake/cpu_units.cmake. Units are compiled with exactly the features listed in detect.cpp
// (-mavx2 -mfma -mf16c, not -march=...), or they may use some that nobody has checked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fusedrnn::cpu {

enum class Isa { scalar, neon, avx2, avx512, avx512_bf16, amx_bf16 };

const char* isa_name(Isa isa);

// Slowest first; the first one runs on every machine of the architecture.
std::vector<Isa> compiled_isas();   // those this build has kernels for (units.cpp)
std::vector<Isa> available_isas();  // those of them that this CPU and operating system run

// The fastest that is available, or the one FUSEDRNN_ISA names. The environment is read once, at
// the first call. Throws where the name is unknown or cannot run here; nothing is replaced in
// silence.
Isa selected_isa();

// What the CPU and the operating system say, so that tests can put other machines in.
struct Machine {
  uint32_t leaf1_ecx = 0;  // CPUID leaf 1
  uint32_t leaf7_ebx = 0;  // CPUID leaf 7, subleaf 0
  uint32_t leaf7_ecx = 0;
  uint32_t leaf7_edx = 0;
  uint32_t leaf7_1_eax = 0;  // CPUID leaf 7, subleaf 1
  uint64_t xcr0 = 0;         // registers the operating system saves; 0 where it cannot be asked
  bool tiles = false;        // whether this process may use AMX's tiles
  bool neon = false;         // Advanced SIMD, which every AArch64 has
};
// Asks the operating system for AMX's tiles where the CPU has them: they are a process's on request
// alone.
Machine this_machine();

// Why `isa` cannot run on `machine`, as "the CPU lacks avx512vl"; "" where it can.
std::string why_unavailable(Isa isa, const Machine& machine);

// `forced`: what FUSEDRNN_ISA holds; null or "" where it is not set.
Isa select_isa(const char* forced, const std::vector<Isa>& compiled, const Machine& machine);

}  // namespace fusedrnn::cpu
