/* Streams a signal through a model file, sample by sample in blocks, at the pace of a sound card:
 * what an effect does inside an audio callback. The model takes one number a sample and gives one:
 *
 *   python -c "import fusedrnn as f; f.LSTM(1, 32, proj_size=1).freeze().save('amp.frnn')"
 *   stream amp.frnn 2 out.f32
 *
 * 2 seconds of a sawtooth at 48 kHz; out.f32 gets what came out, as raw floats. A block is late, an
 * xrun, where it is not done when the sound card would have played the one before: because it takes
 * longer than it plays (its CPU time says so), or because the machine had other things to do. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fusedrnn/fusedrnn.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RATE = 48000, BLOCK = 64, MAX_STATES = 64, ALIGNMENT = 64 };

static const int64_t kBlockTime = (int64_t)BLOCK * 1000000000 / RATE; /* in ns */

static int fail(const char* what) {
  fprintf(stderr, "stream: %s\n", what);
  return 1;
}

static int64_t now(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void wait_until(int64_t time) {
  const struct timespec until = {time / 1000000000, time % 1000000000};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
  }
}

/* All that a step touches; made before the first one. */
typedef struct {
  fusedrnn_frozen* frozen;
  void* workspace;
  void* states[MAX_STATES];
  const float* output; /* h of the last layer */
} Model;

static int prepare(const char* path, Model* model) {
  if (fusedrnn_frozen_load(path, &model->frozen) != FUSEDRNN_OK) return fail(fusedrnn_last_error());
  const fusedrnn_network* const network = fusedrnn_frozen_network(model->frozen);
  fusedrnn_network_info info;
  if (fusedrnn_network_describe(network, &info) != FUSEDRNN_OK) return fail(fusedrnn_last_error());
  if (info.input_size != 1 || info.output_size != 1 || info.dtype.code != kDLFloat ||
      info.dtype.bits != 32 || info.num_states > MAX_STATES) {
    return fail("expected a model of float32 that takes one number a step and gives one");
  }
  for (int32_t i = 0; i < info.num_states; ++i) {
    fusedrnn_array_info state;
    fusedrnn_network_state(network, i, &state);
    model->states[i] = calloc((size_t)state.shape[0], sizeof(float)); /* zero: silence before */
    if (model->states[i] == NULL) return fail("out of memory");
    if (strcmp(state.name, "h") == 0) model->output = model->states[i];
  }
  const size_t bytes = fusedrnn_frozen_workspace(model->frozen, 1);
  if (bytes == 0) return fail(fusedrnn_last_error());
  model->workspace = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
  return model->workspace == NULL ? fail("out of memory") : 0;
}

/* What runs in real time: no memory is allocated, no lock taken, nothing printed. */
static int process(const Model* model, const float* in, float* out, int count) {
  for (int i = 0; i < count; ++i) {
    const fusedrnn_status status =
        fusedrnn_frozen_step(model->frozen, 1, in + i, (const void* const*)model->states,
                             model->states, model->workspace);
    if (status != FUSEDRNN_OK) return 1;
    out[i] = *model->output;
  }
  return 0;
}

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) return fail("usage: stream MODEL SECONDS [OUTPUT]");
  Model model = {0};
  if (prepare(argv[1], &model) != 0) return 1;
  const double seconds = strtod(argv[2], NULL);
  if (!(seconds > 0 && seconds <= 3600)) return fail("SECONDS: expected up to 3600");
  const int64_t blocks = (int64_t)(seconds * RATE) / BLOCK + 1;
  float* const signal = malloc((size_t)blocks * 2 * BLOCK * sizeof(float));
  if (signal == NULL) return fail("out of memory");
  float* const played = signal + blocks * BLOCK;
  memset(played, 0,
         (size_t)(blocks * BLOCK) * sizeof *played); /* its pages are there from now on */
  for (int64_t i = 0; i < blocks * BLOCK; ++i)
    signal[i] = (float)(i % 256) / 128 - 1; /* 187.5 Hz */

  /* Before other threads, as a sound card's is, where the system allows it. */
  const struct sched_param priority = {.sched_priority = sched_get_priority_min(SCHED_FIFO)};
  const int first = sched_setscheduler(0, SCHED_FIFO, &priority) == 0;

  int64_t worst = 0, worst_cpu = 0, xruns = 0, too_slow = 0;
  const int64_t start = now(CLOCK_MONOTONIC);
  for (int64_t b = 0; b < blocks; ++b) {
    wait_until(start + b * kBlockTime); /* the sound card asks for a block */
    const int64_t begin = now(CLOCK_MONOTONIC), cpu_begin = now(CLOCK_THREAD_CPUTIME_ID);
    if (process(&model, signal + b * BLOCK, played + b * BLOCK, BLOCK) != 0) {
      return fail(fusedrnn_last_error());
    }
    const int64_t cpu = now(CLOCK_THREAD_CPUTIME_ID) - cpu_begin, end = now(CLOCK_MONOTONIC);
    if (end - begin > worst) worst = end - begin;
    if (cpu > worst_cpu) worst_cpu = cpu;
    if (end > start + (b + 1) * kBlockTime) ++xruns;
    if (cpu > kBlockTime) ++too_slow;
  }
  printf(
      "blocks %lld of %d samples, %.0f us each; worst block %.1f us, of CPU time %.1f us; "
      "too slow %lld; xruns %lld%s\n",
      (long long)blocks, BLOCK, (double)kBlockTime / 1e3, (double)worst / 1e3,
      (double)worst_cpu / 1e3, (long long)too_slow, (long long)xruns,
      first ? "" : " (without real-time priority)");

  if (argc == 4) {
    FILE* const file = fopen(argv[3], "wb");
    const size_t count = (size_t)(blocks * BLOCK);
    if (file == NULL || fwrite(played, sizeof(float), count, file) != count || fclose(file) != 0) {
      return fail("OUTPUT: cannot be written");
    }
  }
  for (int i = 0; i < MAX_STATES; ++i) free(model.states[i]);
  free(model.workspace);
  free(signal);
  fusedrnn_frozen_free(model.frozen);
  return 0;
}
