// A fork while another thread is in the middle of what the library does once, or under a lock: the
// child must not wait for that thread, which it has not got.
//
// Functions of the system are replaced by ones that stop at a gate, which the test opens.
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>

#include "check.h"
#include "core/cuda_library.h"
#include "core/memory.h"

namespace {

using fusedrnn::Block;

constexpr size_t kMiB = size_t{1} << 20;

// Stops the first thread that passes after close(), until open().
class Gate {
 public:
  void close() {
    reached_ = open_ = false;
    closed_ = true;
  }
  void open() { open_ = true; }
  void pass() {
    if (!closed_.exchange(false)) return;
    reached_ = true;
    while (!open_) std::this_thread::yield();
  }
  // Until a thread has stopped there; false where `done` is set before any has.
  bool is_reached(const std::atomic<bool>& done) const {
    while (!reached_ && !done) std::this_thread::yield();
    return reached_;
  }

 private:
  std::atomic<bool> closed_{false}, reached_{false}, open_{false};
};

Gate lending_gate, library_gate;
std::atomic<int> new_large_blocks{0};

// Forks while `busy` stands at the gate, in a thread of its own. Whether the child came to its end
// and its body returned true; the parent's thread comes to its end as well.
template <class Busy, class Child>
bool in_child(Gate& gate, Busy busy, Child child) {
  gate.close();
  std::atomic<bool> done{false};
  std::thread thread([&] {
    busy();
    done = true;
  });
  CHECK(gate.is_reached(done));  // otherwise the test is none
  // A fork may wait for the thread, but has happened by then if it does not.
  std::thread opener([&gate] {
    usleep(100'000);
    gate.open();
  });
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(20);  // a hang is a failure, not an endless test
    gate.open();
    _exit(child() ? 0 : 1);
  }
  opener.join();
  thread.join();
  int status = -1;
  return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// Of three blocks the last is lent to the system, under the lock of what is kept.
void test_while_a_block_is_released() {
  const auto busy = [] { Block a(64 * kMiB), b(64 * kMiB), c(64 * kMiB); };
  CHECK(in_child(lending_gate, busy, [] {
    const int before = new_large_blocks;
    const Block kept(64 * kMiB);
    return new_large_blocks == before;
  }));
}

bool finds_no_library() {
  try {
    fusedrnn::cuda_plugin();
    return false;
  } catch (const fusedrnn::Error& error) {
    return std::string(error.what()).find("is not the CUDA library of fusedrnn") !=
           std::string::npos;
  }
}

void test_while_a_library_is_opened() {
  setenv("FUSEDRNN_CUDA_LIBRARY", FUSEDRNN_SLOW_PLUGIN, 1);
  CHECK(in_child(library_gate, finds_no_library, finds_no_library));
  CHECK(finds_no_library());
}

// Released after main(), when whatever is destroyed at the end of the process may be.
Block late;

}  // namespace

extern "C" {

int madvise(void* data, size_t bytes, int advice) noexcept {
  if (advice == MADV_FREE) lending_gate.pass();
  if (advice == MADV_HUGEPAGE) ++new_large_blocks;
  return static_cast<int>(syscall(SYS_madvise, data, bytes, advice));
}

__attribute__((visibility("default"))) void fork_test_opens() { library_gate.pass(); }
}

int main() {
  test_while_a_block_is_released();
  test_while_a_library_is_opened();
  late = Block(kMiB);
  return check::result();
}
