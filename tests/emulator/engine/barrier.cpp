#include "engine/barrier.h"

#include "engine/kernel_run.h"

namespace fusedrnn::emulator {

uint64_t Barrier::arrive(int expected, const Where& where) {
  if (arrived_ == 0) {
    first_arrival_ = where;
    expected_ = expected;
  } else if (expected_ != expected) {
    fail(name() + " at " + emulator::describe(where) + ": of " + std::to_string(expected) +
         " threads, but others arrived for " + std::to_string(expected_));
  }
  const uint64_t phase = phase_;
  if (++arrived_ == expected) complete();
  return phase;
}

void Barrier::wait(uint64_t phase, const Where& where) {
  while (phase_ == phase) {
    Thread& thread = self();
    waiting_.push_back(&thread);
    thread.block->run->wait_at(*this, where);
  }
}

void Barrier::complete() {
  ++phase_;
  arrived_ = 0;
  for (Thread* thread : waiting_) thread->block->run->wake(*thread);
  waiting_.clear();
}

void Barrier::reset() {
  arrived_ = 0;
  waiting_.clear();
}

std::string Barrier::name() const {
  return number_ < 0 ? name_ : std::string(name_) + " " + std::to_string(number_);
}

std::string Barrier::describe() const {
  return name() + " (" + std::to_string(arrived_) + " of " + std::to_string(expected_) +
         " arrivals)";
}

std::string describe(const Where& where) {
  const std::string file = where.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line());
}

}  // namespace fusedrnn::emulator
