// Every case of tests/native/golden.py through the emulated CUDA library: forward, inference and
// backward, with arrays in several orders in memory.

#include <iostream>
#include <sstream>
#include <string>

#include "cells.h"
#include "compare.h"
#include "emulator.h"

namespace {

using namespace backend_test;

void check_close(const Case& one, const Arrays& got, double bound, const char* how) {
  for (const auto& [name, array] : got) {
    const double error = golden::relative_error(array, one.results.at(name));
    if (!(error <= bound)) {
      std::ostringstream what;
      what << one.name << how << ": " << name << ": relative error " << error << ", bound "
           << bound;
      check::fail(__FILE__, __LINE__, what.str());
    }
  }
}

// What a forward call writes, of all outputs.
Arrays forward_outputs(const Arrays& all) {
  Arrays some;
  for (const char* name : {"y", "h_n", "c_n"}) {
    const auto found = all.find(name);
    if (found != all.end()) some.emplace(*found);
  }
  return some;
}

void test(const Case& one, int64_t number) {
  const Arrays dense = train(one, {});
  check_close(one, dense, one.bound, "");
  Options options;
  options.host_masks = true;
  Call inference(one, options);
  require(inference.infer(), one);
  check_same(forward_outputs(inference.outputs()), dense,
             one.name + " between inference and training");

  // The others take turns.
  options.order = number % 3 == 0   ? Order::padded
                  : number % 3 == 1 ? Order::batch_first
                                    : Order::backwards;
  options.host_masks = false;
  check_close(one, train(one, options), one.bound, ", other strides");

  const bool float32 = one.arguments.at("x").type.bits == 32 && one.compute == 0;
  if (float32) {
    options.order = Order::dense;
    options.compute = fusedrnn::Compute::tfloat32;
    // Rounding takes a relu or another kink to its other side, and the gradient jumps with it.
    const Arrays got = train(one, options);
    const bool jumps =
        one.cell == "rnn_relu" || one.cell.ends_with("_positive") || one.cell.starts_with("slstm");
    check_close(one, jumps ? forward_outputs(got) : got, 5e-3, " with tfloat32");
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: backend_golden_test FILE [EVERY]: each EVERYth case\n";
    return 2;
  }
  const int64_t every = argc > 2 ? std::stoll(argv[2]) : 1;
  golden::Reader reader(argv[1]);
  const int64_t cases = reader.number();
  int64_t tested = 0, known = 0;
  for (int64_t i = 0; i < cases; ++i) {
    const Case one = golden::read_case(reader);
    if (one.compute == FUSEDRNN_COMPUTE_INT8) continue;  // frozen weights run on the CPU
    if (known++ % every != 0) continue;
    test(one, tested++);
  }
  CHECK(tested > 0);
  CHECK_EQUAL(std::string(emulator_last_error()), "");
  std::cout << tested << " cases, " << emulator_launches() << " launches, "
            << plugin().description() << "\n";
  return check::result();
}
