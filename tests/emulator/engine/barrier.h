// A place where threads wait for one another.
#pragma once

#include <cstdint>
#include <source_location>
#include <string>
#include <vector>

namespace fusedrnn::emulator {

struct Thread;
using Where = std::source_location;

class Barrier {
 public:
  // `number`: of those of the same name; -1 where it is the only one.
  explicit Barrier(const char* name, int number = -1) : name_(name), number_(number) {}

  // One of `expected` arrivals. Returns the phase that the last of them ends.
  uint64_t arrive(int expected, const Where& where);
  // Until that phase has ended.
  void wait(uint64_t phase, const Where& where);
  void arrive_and_wait(int expected, const Where& where) { wait(arrive(expected, where), where); }
  void reset();  // forgets arrivals; nobody waits
  // Ends the phase whatever the number of arrivals.
  void complete();

  uint64_t phase() const { return phase_; }
  int arrived() const { return arrived_; }
  const Where& first_arrival() const { return first_arrival_; }
  std::string name() const;
  std::string describe() const;  // name and counts

 private:
  const char* name_;
  int number_;
  uint64_t phase_ = 0;
  int arrived_ = 0, expected_ = 0;
  Where first_arrival_;
  std::vector<Thread*> waiting_;
};

std::string describe(const Where& where);  // file:line

}  // namespace fusedrnn::emulator
