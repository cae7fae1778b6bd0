/* The library that was found is the header's, and takes a step. */
#include <fusedrnn/fusedrnn.h>
#include <stdio.h>

static int fail(const char* what) {
  fprintf(stderr, "%s: %s\n", what, fusedrnn_last_error());
  return 1;
}

int main(void) {
  /* h = 2 x + 0.5 h, from 4: 8 */
  fusedrnn_run run = {0};
  run.cell = "rnn_identity";
  run.writes = 1;
  run.input_size = run.hidden_size = 1;
  fusedrnn_network_args args = {0};
  args.size = sizeof args;
  args.runs = &run;
  args.num_runs = 1;
  args.dtype.code = kDLFloat;
  args.dtype.bits = 32;
  args.dtype.lanes = 1;
  fusedrnn_network* network = NULL;
  if (fusedrnn_network_create(&args, &network) != FUSEDRNN_OK) return fail("create");

  float numbers[2] = {2, 0.5f};
  int64_t shape[2] = {1, 1};
  DLTensor weights[2] = {{0}};
  for (int i = 0; i < 2; ++i) {
    weights[i].data = &numbers[i];
    weights[i].device.device_type = kDLCPU;
    weights[i].ndim = 2;
    weights[i].dtype = args.dtype;
    weights[i].shape = shape;
  }
  const DLTensor* parameters[4] = {&weights[0], &weights[1], NULL, NULL};
  fusedrnn_frozen* frozen = NULL;
  if (fusedrnn_freeze(network, parameters, &frozen) != FUSEDRNN_OK) return fail("freeze");
  fusedrnn_network_free(network);

  static char memory[1 << 16];
  char* workspace = memory;
  while ((uintptr_t)workspace % 64 != 0) ++workspace;
  if (fusedrnn_frozen_workspace(frozen, 1) > sizeof memory - 64) return fail("workspace");
  float x = 3, h = 4;
  const void* before[1] = {&h};
  void* after[1] = {&h};
  if (fusedrnn_frozen_step(frozen, 1, &x, before, after, workspace) != FUSEDRNN_OK) {
    return fail("step");
  }
  fusedrnn_frozen_free(frozen);
  printf("fusedrnn %s, ABI %d, h %g\n", fusedrnn_version(), (int)fusedrnn_abi_version(), h);
  return !(h == 8 && fusedrnn_abi_version() == FUSEDRNN_ABI_VERSION);
}
