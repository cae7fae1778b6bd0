// A process forked after the library's first use: every function says that it cannot go on, and
// none waits for a thread or a lock of the parent's.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <string>
#include <thread>

#include "compare.h"
#include "random_case.h"

namespace {

using namespace backend_test;

const std::string kWhy =
    "CUDA cannot be used in a process that was forked from one that had used it: ";

bool says_why(fusedrnn_status status) {
  return status == FUSEDRNN_UNAVAILABLE && std::string(plugin().last_error()).starts_with(kWhy);
}

bool refuses(Call& call, void* memory) {
  char why[512] = "";
  const bool no_devices = plugin().device_count(why, sizeof why) == 0;
  fusedrnn::CudaDevice device{};
  int32_t id = 0;
  void* other = nullptr;
  const bool refused = says_why(call.forward()) && says_why(call.backward()) &&
                       says_why(plugin().describe_device(0, &device)) &&
                       says_why(plugin().allocate(0, 16, nullptr, &other)) &&
                       says_why(plugin().order(0, nullptr, &other)) &&
                       says_why(plugin().device_of(memory, &id));
  plugin().release(0, memory, nullptr);
  return refused && no_devices && std::string(why).starts_with(kWhy) &&
         std::string(plugin().description()).starts_with(kWhy);
}

void test_fork() {
  const Case one = random_case({});
  Call call(one, {});
  require(call.forward(), one);
  void* memory = nullptr;
  CHECK(plugin().allocate(0, 16, nullptr, &memory) == FUSEDRNN_OK);
  // Another thread is in the middle of calls all the time.
  std::atomic<bool> stop{false};
  std::atomic<int> rounds{0};
  std::thread rival([&] {
    Call calls(one, {});
    for (; !stop; ++rounds) require(calls.infer(), one);
  });
  while (rounds == 0) std::this_thread::yield();
  for (int i = 0; i < 10; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);  // a hang is a failure, not an endless test
      _exit(refuses(call, memory) ? 0 : 1);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  stop = true;
  rival.join();
  require(call.backward(), one);
  plugin().release(0, memory, nullptr);
}

}  // namespace

int main() {
  test_fork();
  return check::result();
}
