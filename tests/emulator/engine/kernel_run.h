// Runs a kernel: blocks in turns, or together where they may wait for one another.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuda/device/launch_shape.h"
#include "engine/block.h"
#include "engine/random.h"

namespace fusedrnn::emulator {

struct Kernel {
  cuda::device::LaunchShape shape;
  std::string name;
  std::function<void()> body;  // what each thread runs
};

class KernelRun {
 public:
  // seed 0: threads run in order, each up to its first wait. Another: in an order drawn from it.
  KernelRun(const Kernel& kernel, uint64_t seed);

  // The error, or "".
  std::string execute();

  // For the thread that runs.
  void wait_at(const Barrier& barrier, const Where& where);  // until woken
  void poll(const char* what, const Where& where);           // lets others run, then goes on
  void maybe_let_others_run();                               // with a seed
  void add_copy(std::function<void()> copy) { copies_.push_back(std::move(copy)); }
  void progress() { polls_ = 0; }  // something that a poll may wait for

  void wake(Thread& thread);
  [[noreturn]] void fail(const std::string& what);
  const Kernel& kernel() const { return kernel_; }
  Random* random() { return kernel_seed_ == 0 ? nullptr : &random_; }
  std::vector<std::unique_ptr<Block>>& blocks() { return blocks_; }  // those alive

 private:
  void run_group(const std::vector<int64_t>& group);
  void run_until_ended();
  Thread* next_ready();
  void run_thread(Thread& thread);
  void run_a_copy();
  void publish_stores();
  void report_deadlock();
  void clear();
  Index3 index_of(int64_t block) const;
  std::vector<int64_t> order_of_groups(int64_t groups);

  static void enter(void* thread);

  const Kernel& kernel_;
  uint64_t kernel_seed_;
  Random random_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<Thread*> ready_;
  size_t ready_first_ = 0;
  size_t live_ = 0;
  uint64_t polls_ = 0;
  std::deque<std::function<void()>> copies_;  // under way; taken from its front where in order
  std::string error_;
};

}  // namespace fusedrnn::emulator
