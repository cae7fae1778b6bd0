// How many CPUs and threads: the cgroup files of made-up machines, the environment, the setter.

#include "cpu/threads/cpus.h"

#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "check.h"
#include "cpu/threads/pool.h"

#if defined(__linux__)
#include <sched.h>
#endif

namespace {

namespace fs = std::filesystem;
using fusedrnn::cpu::cgroup_cpu_limit;
using fusedrnn::cpu::choose_num_threads;
using fusedrnn::cpu::kNoLimit;
using fusedrnn::cpu::parse_cfs_quota;
using fusedrnn::cpu::parse_cpu_max;

void test_quotas() {
  CHECK_EQUAL(parse_cpu_max("max 100000\n"), kNoLimit);
  CHECK_EQUAL(parse_cpu_max("100000 100000\n"), 1);
  CHECK_EQUAL(parse_cpu_max("100001 100000\n"), 2);
  CHECK_EQUAL(parse_cpu_max("350000 100000"), 4);
  CHECK_EQUAL(parse_cpu_max("1000 100000"), 1);
  CHECK_EQUAL(parse_cpu_max("9000000000000000000 1"), fusedrnn::cpu::kMaxThreads);
  for (const char* const text : {"", "max", "5", "x y", "0 100000", "100000 0", "-1 100000",
                                 "99999999999999999999 100000"}) {
    CHECK_EQUAL(parse_cpu_max(text), kNoLimit);
  }
  CHECK_EQUAL(parse_cfs_quota("-1\n", "100000\n"), kNoLimit);
  CHECK_EQUAL(parse_cfs_quota("150000\n", "100000\n"), 2);
  CHECK_EQUAL(parse_cfs_quota("", "100000\n"), kNoLimit);
  CHECK_EQUAL(parse_cfs_quota("100000\n", ""), kNoLimit);
}

// A file system with only the files that matter.
class FakeRoot {
 public:
  FakeRoot() {
    std::string name = (fs::temp_directory_path() / "fusedrnn-cpus-XXXXXX").string();
    CHECK(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~FakeRoot() { fs::remove_all(path_); }
  FakeRoot(const FakeRoot&) = delete;
  FakeRoot& operator=(const FakeRoot&) = delete;

  void write(const std::string& path, const std::string& text) const {
    const fs::path file = path_ + path;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  int limit() const { return cgroup_cpu_limit(path_); }

 private:
  std::string path_;
};

constexpr const char* kOtherMounts =
    "21 1 8:1 / / rw,relatime - ext4 /dev/root rw\n"
    "too short\n"
    "22 21 0:20 / /proc rw,nosuid shared:5 master:1 - proc proc rw\n"
    "23 21 0:22 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n";

void test_no_cgroups() {
  const FakeRoot machine;
  CHECK_EQUAL(machine.limit(), kNoLimit);
  machine.write("/proc/self/mountinfo", kOtherMounts);
  CHECK_EQUAL(machine.limit(), kNoLimit);
}

void test_v2_takes_the_tightest_above() {
  const FakeRoot machine;
  machine.write("/proc/self/cgroup", "0::/user.slice/job/task\n");
  machine.write(
      "/proc/self/mountinfo",
      std::string(kOtherMounts) +
          "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
  CHECK_EQUAL(machine.limit(), kNoLimit);
  machine.write("/sys/fs/cgroup/user.slice/job/task/cpu.max", "max 100000\n");
  CHECK_EQUAL(machine.limit(), kNoLimit);
  machine.write("/sys/fs/cgroup/user.slice/job/cpu.max", "250000 100000\n");
  CHECK_EQUAL(machine.limit(), 3);
  machine.write("/sys/fs/cgroup/user.slice/job/task/cpu.max", "700000 100000\n");
  CHECK_EQUAL(machine.limit(), 3);
  machine.write("/sys/fs/cgroup/user.slice/cpu.max", "150000 100000\n");
  CHECK_EQUAL(machine.limit(), 2);
  machine.write("/sys/fs/cgroup/user.slice/other/cpu.max", "50000 100000\n");
  CHECK_EQUAL(machine.limit(), 2);
  machine.write("/sys/fs/cgroup/cpu.max", "50000 100000\n");
  CHECK_EQUAL(machine.limit(), 1);
}

// A container sees its own group as the top of the hierarchy.
void test_v2_in_a_container() {
  const FakeRoot machine;
  machine.write("/proc/self/cgroup", "0::/\n");
  machine.write("/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
  machine.write("/sys/fs/cgroup/cpu.max", "400000 100000\n");
  CHECK_EQUAL(machine.limit(), 4);
  // A group outside of what is mounted: what is mounted is all there is to read.
  machine.write("/proc/self/cgroup", "0::/../elsewhere\n");
  CHECK_EQUAL(machine.limit(), 4);
}

void test_v1() {
  const FakeRoot machine;
  machine.write("/proc/self/cgroup",
                "5:cpuset:/set\n3:cpuacct,cpu:/docker/abc/inner\n1:name=systemd:/x\n0::/\n");
  machine.write(
      "/proc/self/mountinfo",
      std::string(kOtherMounts) +
          "31 23 0:27 /docker/abc /sys/fs/cg\\040roup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n");
  const std::string folder = "/sys/fs/cg roup/cpu";
  machine.write(folder + "/inner/cpu.cfs_quota_us", "-1\n");
  machine.write(folder + "/inner/cpu.cfs_period_us", "100000\n");
  CHECK_EQUAL(machine.limit(), kNoLimit);
  machine.write(folder + "/cpu.cfs_quota_us", "120000\n");
  machine.write(folder + "/cpu.cfs_period_us", "100000\n");
  CHECK_EQUAL(machine.limit(), 2);
  machine.write(folder + "/inner/cpu.cfs_quota_us", "60000\n");
  CHECK_EQUAL(machine.limit(), 1);
  // A name that merely begins like the mount's root is another group.
  machine.write("/proc/self/cgroup", "3:cpu:/docker/abcdef/inner\n");
  CHECK_EQUAL(machine.limit(), 2);
}

void test_both_versions() {
  const FakeRoot machine;
  machine.write("/proc/self/cgroup", "1:cpu:/\n0::/\n");
  machine.write(
      "/proc/self/mountinfo",
      "31 23 0:27 / /cg1 rw - cgroup cgroup rw,cpu\n32 23 0:28 / /cg2 rw - cgroup2 none rw\n");
  machine.write("/cg1/cpu.cfs_quota_us", "300000\n");
  machine.write("/cg1/cpu.cfs_period_us", "100000\n");
  CHECK_EQUAL(machine.limit(), 3);
  machine.write("/cg2/cpu.max", "200000 100000\n");
  CHECK_EQUAL(machine.limit(), 2);
}

void test_environment() {
  CHECK_EQUAL(choose_num_threads(nullptr, nullptr, 7), 7);
  CHECK_EQUAL(choose_num_threads("3", "5", 7), 3);
  CHECK_EQUAL(choose_num_threads(" 1024\n", "5", 7), 1024);
  CHECK_EQUAL(choose_num_threads("", "5", 7), 5);
  CHECK_EQUAL(choose_num_threads(nullptr, "5,3", 7), 5);
  CHECK_EQUAL(choose_num_threads(nullptr, " 5 , 3", 7), 5);
  for (const char* const text : {"", " ", "abc", "0", "-2", "2x", ",4", "1025", "0x4"}) {
    CHECK_EQUAL(choose_num_threads(nullptr, text, 7), 7);
  }
  for (const char* const text :
       {" ", "abc", "0", "-1", "+2", "2.5", "2,3", "1025", "4294967297", "4 4"}) {
    CHECK_THROWS(choose_num_threads(text, "5", 7), FUSEDRNN_INVALID_VALUE,
                 "FUSEDRNN_NUM_THREADS: expected a number of threads from 1 to 1024, got '" +
                     std::string(text) + "'");
  }
}

void test_set_and_get() {
  using fusedrnn::cpu::get_num_threads;
  using fusedrnn::cpu::set_num_threads;
  unsetenv("OMP_NUM_THREADS");
  setenv("FUSEDRNN_NUM_THREADS", "abc", 1);
  for (int i = 0; i < 2; ++i) {  // it stays an error
    CHECK_THROWS(get_num_threads(), FUSEDRNN_INVALID_VALUE,
                 "FUSEDRNN_NUM_THREADS: expected a number of threads from 1 to 1024, got 'abc'");
  }
  setenv("FUSEDRNN_NUM_THREADS", "6", 1);
  CHECK_EQUAL(get_num_threads(), 6);
  setenv("FUSEDRNN_NUM_THREADS", "7", 1);
  CHECK_EQUAL(get_num_threads(), 6);
  for (const int n : {1, 5, 1024}) {
    set_num_threads(n);
    CHECK_EQUAL(get_num_threads(), n);
  }
  for (const int n : {0, -1, 1025}) {
    CHECK_THROWS(set_num_threads(n), FUSEDRNN_INVALID_VALUE,
                 "n: expected a number of threads from 1 to 1024, got " + std::to_string(n));
  }
  CHECK_EQUAL(get_num_threads(), 1024);
}

void test_affinity() {
  const int cpus = fusedrnn::cpu::available_cpus();
  CHECK(cpus >= 1);
#if defined(__linux__)
  CHECK(cpus <= static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  cpu_set_t before, one;
  CHECK_EQUAL(sched_getaffinity(0, sizeof before, &before), 0);
  CPU_ZERO(&one);
  for (size_t cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &before)) {
      CPU_SET(cpu, &one);
    }
  }
  CHECK_EQUAL(sched_setaffinity(0, sizeof one, &one), 0);
  CHECK_EQUAL(fusedrnn::cpu::available_cpus(), 1);
  CHECK_EQUAL(sched_setaffinity(0, sizeof before, &before), 0);
  CHECK_EQUAL(fusedrnn::cpu::available_cpus(), cpus);
#endif
}

}  // namespace

int main() {
  test_quotas();
  test_no_cgroups();
  test_v2_takes_the_tightest_above();
  test_v2_in_a_container();
  test_v1();
  test_both_versions();
  test_environment();
  test_set_and_get();
  test_affinity();
  return check::result();
}
