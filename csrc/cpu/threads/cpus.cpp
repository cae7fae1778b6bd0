#include "cpu/threads/cpus.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string_view>
#include <thread>
#include <vector>

#include "cpu/threads/pool.h"

#if defined(__linux__)
#include <sched.h>

#include <cerrno>
#endif

namespace fusedrnn::cpu {

namespace {

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

int quota_to_cpus(int64_t quota, int64_t period) {
  if (quota <= 0 || period <= 0) {
    return kNoLimit;
  }
  const int64_t cpus = quota / period + (quota % period != 0 ? 1 : 0);
  return static_cast<int>(std::min<int64_t>(cpus, kMaxThreads));
}

int smaller_limit(int a, int b) {
  if (a == kNoLimit || b == kNoLimit) {
    return std::max(a, b);
  }
  return std::min(a, b);
}

bool list_contains(const std::string& comma_list, std::string_view item) {
  std::istringstream list(comma_list);
  for (std::string entry; std::getline(list, entry, ',');) {
    if (entry == item) {
      return true;
    }
  }
  return false;
}

// mountinfo writes blanks and backslashes in paths as \ and three octal digits.
std::string unescape(const std::string& path) {
  const auto octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string out;
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] == '\\' && i + 3 < path.size() && octal(path[i + 1]) && octal(path[i + 2]) &&
        octal(path[i + 3])) {
      const int code = (path[i + 1] - '0') * 64 + (path[i + 2] - '0') * 8 + (path[i + 3] - '0');
      out.push_back(static_cast<char>(code));
      i += 3;
    } else {
      out.push_back(path[i]);
    }
  }
  return out;
}

// Where a hierarchy's files are: its subtree from `root` on is mounted at `point`.
struct Mount {
  bool v2;
  std::string root;
  std::string point;
};

// The hierarchies that can limit CPUs, from lines of /proc/self/mountinfo (see proc(5)):
//   36 35 98:0 /root /mount/point rw,noatime shared:1 - cgroup2 source rw,superoptions
std::vector<Mount> cpu_cgroup_mounts(const std::string& mountinfo) {
  std::vector<Mount> mounts;
  std::istringstream lines(mountinfo);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string skipped, root, point, word, type, source, options;
    fields >> skipped >> skipped >> skipped >> root >> point;
    while (fields >> word && word != "-") {
    }
    if (!(fields >> type >> source)) {
      continue;
    }
    fields >> options;
    if (type == "cgroup2" || (type == "cgroup" && list_contains(options, "cpu"))) {
      mounts.push_back({type == "cgroup2", unescape(root), unescape(point)});
    }
  }
  return mounts;
}

// The process's group in the hierarchy, from lines "3:cpu,cpuacct:/path" (v1) and "0::/path" (v2).
std::string cgroup_path(const std::string& cgroups, bool v2) {
  std::istringstream lines(cgroups);
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) {
      continue;
    }
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (v2 ? controllers.empty() : list_contains(controllers, "cpu")) {
      return line.substr(second + 1);
    }
  }
  return "/";
}

// `path` as seen below the mount's root; "" where that is the mount itself, or where the group lies
// outside of what is mounted (a container that sees only its own part).
std::string below_root(const std::string& path, const std::string& root) {
  std::string below;
  if (root == "/") {
    below = path;
  } else if (path.compare(0, root.size(), root) == 0 &&
             (path.size() == root.size() || path[root.size()] == '/')) {
    below = path.substr(root.size());
  }
  if (below == "/" || below.find("/..") != std::string::npos) {
    below.clear();
  }
  return below;
}

int group_limit(const std::string& folder, bool v2) {
  return v2 ? parse_cpu_max(read_file(folder + "/cpu.max"))
            : parse_cfs_quota(read_file(folder + "/cpu.cfs_quota_us"),
                              read_file(folder + "/cpu.cfs_period_us"));
}

#if defined(__linux__)
int affinity_cpus() {
  // The kernel refuses sets smaller than its own, whose size it does not tell.
  for (size_t count = 1024; count <= size_t{1} << 20; count *= 2) {
    std::vector<unsigned char> storage(CPU_ALLOC_SIZE(count));
    auto* const set = reinterpret_cast<cpu_set_t*>(storage.data());
    if (sched_getaffinity(0, storage.size(), set) == 0) {
      return CPU_COUNT_S(storage.size(), set);
    }
    if (errno != EINVAL) {
      break;
    }
  }
  return static_cast<int>(std::thread::hardware_concurrency());
}
#endif

}  // namespace

int parse_cpu_max(const std::string& text) {
  std::istringstream fields(text);
  int64_t quota = 0;
  int64_t period = 0;
  return fields >> quota >> period ? quota_to_cpus(quota, period) : kNoLimit;
}

int parse_cfs_quota(const std::string& quota, const std::string& period) {
  return parse_cpu_max(quota + " " + period);
}

int cgroup_cpu_limit(const std::string& root) {
  const std::string cgroups = read_file(root + "/proc/self/cgroup");
  int limit = kNoLimit;
  for (const Mount& mount : cpu_cgroup_mounts(read_file(root + "/proc/self/mountinfo"))) {
    // A group is bound by its own limit and by those of all above it.
    std::string below = below_root(cgroup_path(cgroups, mount.v2), mount.root);
    for (;;) {
      limit = smaller_limit(limit, group_limit(root + mount.point + below, mount.v2));
      if (below.empty()) {
        break;
      }
      below.erase(below.find_last_of('/') == std::string::npos ? 0 : below.find_last_of('/'));
    }
  }
  return limit;
}

int available_cpus() {
#if defined(__linux__)
  const int cpus = smaller_limit(affinity_cpus(), cgroup_cpu_limit());
#else
  const int cpus = static_cast<int>(std::thread::hardware_concurrency());
#endif
  return std::clamp(cpus, 1, kMaxThreads);
}

}  // namespace fusedrnn::cpu
