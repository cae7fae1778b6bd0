/* Steps in a process that may make no system call but the one that ends it: the kernel kills it at
 * any other. */
#define _GNU_SOURCE
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "abi_support.h"

enum { BATCH = 2, STEPS = 20, NO_SUCH_MODE = 77 };

static const Format kInt8 = {"float32 in int8", {kDLFloat, 32, 1}, FUSEDRNN_COMPUTE_INT8, 1e-2};

typedef struct {
  const fusedrnn_frozen* frozen;
  const void* x;
  const void* prev[MAX_STATES];
  void* next[MAX_STATES];
  void* workspace;
} Step;

static int take(const Step* s) {
  const fusedrnn_status status =
      fusedrnn_frozen_step(s->frozen, BATCH, s->x, s->prev, s->next, s->workspace);
  return status == FUSEDRNN_OK ? 0 : 1;
}

/* How a child ends that takes steps, the first of them before it may do nothing else: as waitpid
 * has it. */
static int status_of_child(const Step* step, int asks_the_system) {
  const pid_t child = fork();
  if (child == 0) {
    int failed = take(step);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) failed = NO_SUCH_MODE;
    for (int i = 0; i < STEPS && failed == 0; ++i) failed = take(step);
    if (asks_the_system && failed == 0) syscall(SYS_getppid);
    syscall(SYS_exit, failed); /* _exit ends all threads, by another call */
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  return status;
}

static void check_steps(Problem* p) {
  Step step = {.x = row_of(p->x, 0)};
  fusedrnn_frozen* frozen = NULL;
  MUST(fusedrnn_freeze(p->network, p->forward.parameters, &frozen));
  step.frozen = frozen;
  step.workspace = aligned_alloc(64, (fusedrnn_frozen_workspace(frozen, BATCH) + 63) / 64 * 64);
  CHECK(step.workspace != NULL);
  for (int i = 0; i < p->info.num_states; ++i) {
    step.prev[i] = row_of(p->states.arrays[i], 0);
    step.next[i] = row_of(p->states_n.arrays[i], 0);
  }
  const int status = status_of_child(&step, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != NO_SUCH_MODE) {
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    const int asked = status_of_child(&step, 1);
    CHECK(WIFSIGNALED(asked) && WTERMSIG(asked) == SIGKILL);
  }
  free(step.workspace);
  fusedrnn_frozen_free(frozen);
}

int main(void) {
  if (!can_run()) return NOT_ON_THIS_MACHINE;
  MUST(fusedrnn_set_num_threads(2));
  for (int f = 0; f <= FORMATS; ++f) {
    const Format* const format = f < FORMATS ? &kFormats[f] : &kInt8;
    for (int cell = 0; cell < CELLS; ++cell) {
      snprintf(context, sizeof context, "%s, %s", kCells[cell], format->name);
      const fusedrnn_run run = layer(kCells[cell], 0, 7, 21);
      Problem* const p = new_problem(&run, 1, (Setting){format, STEPS, BATCH, 0, 0});
      check_steps(p);
      free_problem(p);
    }
  }
  return result();
}
