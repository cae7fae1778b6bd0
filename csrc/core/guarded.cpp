#include "core/guarded.h"

#include <cstring>

namespace fusedrnn {
namespace {

constexpr size_t kBrief = 96;

// What has no destructor, and can be used until the thread is gone.
struct LastError {
  const char* message = "";
  char brief[kBrief] = {};
  bool text_is_gone = false;
};
thread_local constinit LastError last;

struct Text {
  std::string copy;

  // The destructors of a thread come before the functions of atexit, which may still call us.
  ~Text() {
    last.message = "";
    last.text_is_gone = true;
  }
};
thread_local Text text;

}  // namespace

const char* last_error() noexcept { return last.message; }

fusedrnn_status fail(fusedrnn_status status, const char* message) noexcept {
  try {
    if (!last.text_is_gone) {
      text.copy = message;
      last.message = text.copy.c_str();
      return status;
    }
  } catch (...) {
    // No memory for the message: as much of it as there is room for.
  }
  std::strncpy(last.brief, message, kBrief - 1);
  last.message = last.brief;
  return status;
}

fusedrnn_status fail_with_literal(fusedrnn_status status, const char* message) noexcept {
  last.message = message;
  return status;
}

}  // namespace fusedrnn
