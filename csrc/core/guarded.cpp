#include "core/guarded.h"

namespace fusedrnn {
namespace {

// Where there is no memory for a message, a literal.
struct LastError {
  std::string text;
  const char* message = "";
};
thread_local LastError last;

}  // namespace

const char* last_error() noexcept { return last.message; }

fusedrnn_status fail(fusedrnn_status status, const char* message) noexcept {
  try {
    last.text = message;
    last.message = last.text.c_str();
  } catch (...) {
    last.message = "out of memory";
  }
  return status;
}

}  // namespace fusedrnn
