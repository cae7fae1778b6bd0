// The few lines a native test needs: a failed check is printed and main() returns nonzero.
#pragma once

#include <atomic>
#include <iostream>
#include <sstream>
#include <string>

#include "core/error.h"

namespace check {

inline std::atomic<int> failures{0};

inline void fail(const char* file, int line, const std::string& what) {
  std::ostringstream message;  // one write, since several threads may fail at once
  message << file << ":" << line << ": " << what << "\n";
  std::cerr << message.str();
  ++failures;
}

template <class A, class B>
void expect_equal(const A& actual, const B& expected, const char* text, const char* file,
                  int line) {
  if (!(actual == expected)) {
    std::ostringstream what;
    what << text << ": got " << actual << ", expected " << expected;
    fail(file, line, what.str());
  }
}

template <class Call>
void throws(Call call, fusedrnn_status status, const std::string& message, const char* file,
            int line) {
  try {
    call();
    fail(file, line, "nothing thrown, expected: " + message);
  } catch (const fusedrnn::Error& error) {
    expect_equal(std::string(error.what()), message, "message", file, line);
    expect_equal(static_cast<int>(error.status()), static_cast<int>(status), "status", file, line);
  }
}

inline int result() {
  if (failures != 0) {
    std::cerr << failures << " checks failed\n";
  }
  return failures == 0 ? 0 : 1;
}

}  // namespace check

#define CHECK(condition) \
  ((condition) ? void() : check::fail(__FILE__, __LINE__, "not true: " #condition))
#define CHECK_EQUAL(actual, expected) \
  check::expect_equal((actual), (expected), #actual, __FILE__, __LINE__)
#define CHECK_THROWS(call, status, message) \
  check::throws([&] { (void)(call); }, (status), (message), __FILE__, __LINE__)
