// Accesses to global memory by threads that run at the same time.
//
// With a seed, a weak store stays with its thread until a barrier shows it to the block, and with
// the block until a fence or a release of one of its threads publishes it; and a weak load may
// return what the block has loaded from there before, until one of its threads acquires. Without a
// seed memory is as the host's.
#pragma once

#include <cstddef>

#include "engine/thread.h"

namespace fusedrnn::emulator {

void weak_load(const void* from, void* to, size_t size);
void weak_store(void* to, const void* from, size_t size);

// A relaxed access lets others run first, so that a loop over it comes to an end.
void relaxed_load(const void* from, void* to, size_t size, const Where& where);
void relaxed_store(void* to, const void* from, size_t size);
uint32_t relaxed_add(uint32_t* to, uint32_t value, const Where& where);

void publish(Thread& thread);        // the half of a fence that a release is
void renew(Thread& thread);          // the other, an acquire
void show_to_block(Thread& thread);  // at a barrier inside of it
void check_aligned(const void* address, size_t size);

}  // namespace fusedrnn::emulator
