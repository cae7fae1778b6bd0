// A kernel that nothing can stop ends its process, and says which it was.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "fixture.h"
#include "kernels/exchange.h"

using namespace fixture;  // NOLINT: a test program

namespace {

[[noreturn]] void run_for_ever(int errors) {
  dup2(errors, STDERR_FILENO);
  setenv("FUSEDRNN_EMULATOR_TIMEOUT", "1", 1);
  const DeviceArray<uint32_t> flag(1);
  error_of_launch(fusedrnn::cuda::kernels::waits_plainly, {.block = 32, .name = "plainly"},
                  flag.data());
  std::_Exit(0);
}

std::string all_of(int file) {
  std::string text;
  char part[256];
  for (ssize_t n = 0; (n = read(file, part, sizeof part)) > 0;) {
    text.append(part, static_cast<size_t>(n));
  }
  return text;
}

}  // namespace

int main() {
  int ends[2];
  CHECK_EQUAL(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) run_for_ever(ends[1]);
  close(ends[1]);
  CHECK_ERROR(all_of(ends[0]),
              "kernel plainly, block (0, 0, 0), thread 0: has run for 2 s without waiting");
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  return check::result();
}
