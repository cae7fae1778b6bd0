// How many CPUs and threads there are to use: the parts of pool.h's answers that tests can feed.
#pragma once

#include <string>

namespace fusedrnn::cpu {

constexpr int kNoLimit = 0;

// CPUs that a cgroup's files grant, rounded up; kNoLimit where they set none or cannot be
// understood.
int parse_cpu_max(const std::string& text);  // v2 cpu.max: "50000 100000" or "max 100000"
int parse_cfs_quota(const std::string& quota, const std::string& period);  // v1, quota -1: none

// The smallest limit on this process in any cgroup above it, of both versions; kNoLimit if none.
// `root` is put before every absolute path, so that tests can build a file system of their own.
int cgroup_cpu_limit(const std::string& root = "");

// What stands in the environment (null: not set), else `cpus`. Throws as get_num_threads does.
int choose_num_threads(const char* fusedrnn_num_threads, const char* omp_num_threads, int cpus);

}  // namespace fusedrnn::cpu
