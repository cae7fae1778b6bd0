// AMX for tests on machines without it: a unit of AMX runs as it is, and what the CPU does not know
// comes here by way of its trap. Instructions as in Intel SDM, volume 2; the tile registers of a
// thread lie in its memory. What the CPU would fault on ends the program with a message.
#pragma once

#include <cstdint>

namespace amx_emulator {

// From now on a trap into an instruction of AMX runs one of the functions below.
void install();
bool is_installed();

void ldtilecfg(const void* configuration);
void tilerelease();
void tilezero(int tile);
void tileloadd(int tile, const void* base, int64_t stride);
void tilestored(int tile, void* base, int64_t stride);
// sum += a b, with sums in float32 and in int32.
void tdpbf16ps(int sum, int a, int b);
void tdpbusd(int sum, int a, int b);

// Whether the calling thread's registers are configured: to be released when the work is done.
bool is_configured();

// How many products the calling thread has run.
int64_t products();

}  // namespace amx_emulator
