// A consumer of DLPack tensors that knows nothing of Python: it gives them back on a thread of its
// own, from functions that let no exception out, and joins that thread when the process exits.
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>

#include "fusedrnn/dlpack_abi.h"

namespace {

std::vector<DLManagedTensor*> tensors;

void give_back() noexcept {
  for (DLManagedTensor* tensor : tensors) tensor->deleter(tensor);
  std::printf("gave back %zu\n", tensors.size());
  std::fflush(stdout);
}

class Worker {
 public:
  ~Worker() {
    if (gives_back_at_exit_) start();
    if (!thread_.joinable()) return;
    if (getpid() == process_) {
      thread_.join();
    } else {
      thread_.detach();  // of the parent's
    }
  }
  void start() {
    std::atomic<bool> runs{false};
    thread_ = std::thread([&runs]() noexcept {
      runs = true;
      give_back();
    });
    while (!runs) usleep(100);
  }
  void wait() { thread_.join(); }
  void give_back_at_exit() { gives_back_at_exit_ = true; }

 private:
  const pid_t process_ = getpid();
  std::thread thread_;
  bool gives_back_at_exit_ = false;
};

// Destroyed after Python has ended.
Worker worker;

}  // namespace

extern "C" {

void take(DLManagedTensor* tensor) { tensors.push_back(tensor); }

// These keep the GIL, if the caller has it.
void start_to_give_back() {
  worker.start();
  usleep(50'000);  // by now the thread waits for the GIL, if it wants it
}
void give_back_and_wait() {
  worker.start();
  worker.wait();
}
void give_back_at_exit() { worker.give_back_at_exit(); }
}
