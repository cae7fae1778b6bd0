// The child of a fork has none of the CUDA that its parent has used: CUDA itself says so of its own
// functions, and what the library keeps is that of a moment in other threads' calls, locks
// included.
#pragma once

namespace fusedrnn::cuda {

// Whether this process was forked from one that had come here before. Takes no lock.
bool lost_by_fork() noexcept;

// Throws where it was.
void require_own_process();

}  // namespace fusedrnn::cuda
