// The blocks of a cluster, and their barrier.
#pragma once

#include "engine/kernel_run.h"
#include "engine/weak_memory.h"

namespace fusedrnn::emulator {

int rank_in_cluster(const Block& block);
Block& block_of_cluster(int rank);  // of the running thread's cluster

void arrive_in_cluster(const Where& where);
void wait_in_cluster(const Where& where);

}  // namespace fusedrnn::emulator
