/* The C library closed right after a call on two threads, whose worker still looks for the next
 * one: what it runs must stay where it is. Twice, as plugins are opened and closed. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

#include "fusedrnn/fusedrnn.h"

static int failures = 0;

#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) {                                               \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                     \
    }                                                                 \
  } while (0)

enum { T = 40, B = 16, I = 64, H = 128 };

static DLTensor tensor_of(float* data, int64_t* shape, int ndim) {
  return (DLTensor){.data = data,
                    .device = {kDLCPU, 0},
                    .ndim = ndim,
                    .dtype = {kDLFloat, 32, 1},
                    .shape = shape};
}

/* A forward pass that is worth two threads; all that this test knows of the C ABI's calls. */
static fusedrnn_status call(void* library) {
  fusedrnn_status (*create)(const fusedrnn_network_args*, fusedrnn_network**) = NULL;
  fusedrnn_status (*forward)(const fusedrnn_forward_args*) = NULL;
  void (*release)(fusedrnn_network*) = NULL;
  *(void**)&create = dlsym(library, "fusedrnn_network_create");
  *(void**)&forward = dlsym(library, "fusedrnn_forward");
  *(void**)&release = dlsym(library, "fusedrnn_network_free");

  const fusedrnn_run run = {.cell = "rnn_tanh", .writes = 1, .input_size = I, .hidden_size = H};
  const fusedrnn_network_args network_args = {
      .size = sizeof network_args, .runs = &run, .num_runs = 1, .dtype = {kDLFloat, 32, 1}};
  fusedrnn_network* network = NULL;
  fusedrnn_status status = create(&network_args, &network);
  if (status != FUSEDRNN_OK) return status;

  static float x[T * B * I], w_ih[H * I], w_hh[H * H], y[T * B * H];
  int64_t shapes[][3] = {{T, B, I}, {H, I}, {H, H}, {T, B, H}};
  const DLTensor tensors[] = {tensor_of(x, shapes[0], 3), tensor_of(w_ih, shapes[1], 2),
                              tensor_of(w_hh, shapes[2], 2)};
  DLTensor result = tensor_of(y, shapes[3], 3);
  const DLTensor* const parameters[] = {&tensors[1], &tensors[2], NULL, NULL};
  const fusedrnn_forward_args args = {.size = sizeof args,
                                      .network = network,
                                      .x = &tensors[0],
                                      .parameters = parameters,
                                      .y = &result};
  status = forward(&args);
  release(network);
  return status;
}

static int threads(void) {
  DIR* const tasks = opendir("/proc/self/task");
  int count = -2; /* . and .. */
  while (readdir(tasks) != NULL) ++count;
  closedir(tasks);
  return count;
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const int before = threads(); /* an emulator has some of its own */
  for (int round = 0; round < 2; ++round) {
    void* const library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
      fprintf(stderr, "%s\n", dlerror());
      return 1;
    }
    fusedrnn_status (*set_num_threads)(int32_t) = NULL;
    *(void**)&set_num_threads = dlsym(library, "fusedrnn_set_num_threads");
    CHECK(set_num_threads(2) == FUSEDRNN_OK);
    const fusedrnn_status status = call(library);
    if (status == FUSEDRNN_UNAVAILABLE) return 77; /* an instruction set that cannot run here */
    CHECK(status == FUSEDRNN_OK);
    CHECK(threads() == before + 1); /* otherwise the test is none */
    dlclose(library);
    usleep(100 * 1000); /* the worker would come to the next line of what is gone */
  }
  CHECK(threads() == before + 1); /* the same library and the same worker both times */
  if (failures > 0) fprintf(stderr, "%d failures\n", failures);
  return failures > 0;
}
