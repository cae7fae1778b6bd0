// Every case of golden.py through the C ABI: forward, inference and backward, by one thread and
// two, with the instruction set that FUSEDRNN_ISA names. Needs no Python, so that it runs on any
// target.

#include <stdlib.h>
#include <string.h>

#include <cstddef>
#include <iostream>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/isa/detect.h"
#include "fusedrnn/fusedrnn.h"
#ifdef FUSEDRNN_AMX_EMULATED
#include "amx_emulator.h"
#endif
#include "golden_file.h"

namespace {

using golden::Array;
using golden::Arrays;
using golden::Case;
using golden::Reader;

// What ctest takes for "not on this machine".
constexpr int kSkipped = 77;

// --- a call ---

void require(fusedrnn_status status, const Case& one) {
  if (status != FUSEDRNN_OK) throw std::runtime_error(one.name + ": " + fusedrnn_last_error());
}

// The case's cell as a network, and the names of its arrays in their order.
struct Network {
  std::unique_ptr<fusedrnn_network, decltype(&fusedrnn_network_free)> handle;
  std::vector<std::string> parameters, states;

  explicit Network(const Case& one, fusedrnn_memory memory = FUSEDRNN_MEMORY_DEFAULT)
      : handle(nullptr, fusedrnn_network_free) {
    fusedrnn_run run{};
    run.cell = one.cell.c_str();
    run.reverse = one.reverse;
    run.writes = 1;
    run.input_size = one.arguments.at("x").shape[2];
    run.hidden_size = one.results.at("y").shape[2];
    // A matrix w_hh of fewer columns has heads.
    if (const auto w_hh = one.arguments.find("w_hh"); w_hh != one.arguments.end()) {
      run.heads = run.hidden_size / w_hh->second.shape.back();
    }
    run.weight_dropout = one.rates[0];
    run.zoneout_h = one.rates[1];
    run.zoneout_c = one.rates[2];
    run.candidate_dropout = one.rates[3];
    run.recurrent_dropout = one.rates[4];
    fusedrnn_network_args args{};
    args.size = sizeof args;
    args.runs = &run;
    args.num_runs = 1;
    args.compute = one.compute;
    args.memory = memory;
    args.dtype = one.arguments.at("x").type;
    fusedrnn_network* network = nullptr;
    require(fusedrnn_network_create(&args, &network), one);
    handle.reset(network);
    fusedrnn_network_info info{};
    require(fusedrnn_network_describe(network, &info), one);
    fusedrnn_array_info array{};
    for (int32_t i = 0; i < info.num_parameters; ++i) {
      require(fusedrnn_network_parameter(network, i, &array), one);
      parameters.emplace_back(array.name);
    }
    for (int32_t i = 0; i < info.num_states; ++i) {
      require(fusedrnn_network_state(network, i, &array), one);
      states.emplace_back(array.name);
    }
  }
};

// Tensors of arrays, as long as a call needs them.
class Tensors {
 public:
  // Null where there is no such array.
  DLTensor* of(Arrays& arrays, const std::string& name) {
    const auto found = arrays.find(name);
    return found == arrays.end() ? nullptr : &(tensors_[name] = found->second.tensor());
  }
  // The tensors of before + name + after.
  template <class Tensor>
  std::vector<Tensor*> list(Arrays& arrays, const char* before,
                            const std::vector<std::string>& names, const char* after) {
    std::vector<Tensor*> tensors;
    for (const std::string& name : names) tensors.push_back(of(arrays, before + name + after));
    return tensors;
  }

 private:
  std::map<std::string, DLTensor> tensors_;
};

// Arrays to be written, of those results whose names begin with d or do not.
void add_outputs(const Case& one, bool gradients, Arrays& arrays) {
  for (const auto& [name, result] : one.results) {
    if ((name[0] == 'd') == gradients) {
      arrays.emplace(name, Array(result.shape, one.arguments.at("x").type));
    }
  }
}

// Calls run(args), a forward call without weights or reserve.
template <class Run>
void forward(Case& one, const Network& network, Arrays& outputs, const Run& run) {
  Tensors tensors;
  add_outputs(one, false, outputs);
  const auto states = tensors.list<const DLTensor>(one.arguments, "", network.states, "0");
  const auto states_n = tensors.list<DLTensor>(outputs, "", network.states, "_n");
  fusedrnn_forward_args args{};
  args.size = sizeof args;
  args.x = tensors.of(one.arguments, "x");
  args.states = states.data();
  args.lengths = tensors.of(one.arguments, "lengths");
  args.resets = tensors.of(one.arguments, "resets");
  args.y = tensors.of(outputs, "y");
  args.states_n = states_n.data();
  require(run(args), one);
}

// With the case's weights. `reserve` may be empty.
void forward(Case& one, const Network& network, Arrays& outputs,
             std::vector<std::max_align_t>& reserve, size_t bytes) {
  Tensors tensors;
  const auto parameters = tensors.list<const DLTensor>(one.arguments, "", network.parameters, "");
  forward(one, network, outputs, [&](fusedrnn_forward_args& args) {
    args.network = network.handle.get();
    args.parameters = parameters.data();
    args.reserve = reserve.empty() ? nullptr : reserve.data();
    args.reserve_bytes = bytes;
    args.training = one.is_noisy();
    args.dropout_seed = one.seed;
    return fusedrnn_forward(&args);
  });
}

Arrays infer(Case& one) {
  Arrays outputs;
  std::vector<std::max_align_t> none;
  forward(one, Network(one), outputs, none, 0);
  return outputs;
}

// Inference with weights that were frozen before.
Arrays infer_frozen(Case& one) {
  const Network network(one);
  Tensors tensors;
  const auto parameters = tensors.list<const DLTensor>(one.arguments, "", network.parameters, "");
  fusedrnn_frozen* handle = nullptr;
  require(fusedrnn_freeze(network.handle.get(), parameters.data(), &handle), one);
  const std::unique_ptr<fusedrnn_frozen, decltype(&fusedrnn_frozen_free)> frozen(
      handle, fusedrnn_frozen_free);
  Arrays outputs;
  forward(one, network, outputs, [&](fusedrnn_forward_args& args) {
    return fusedrnn_frozen_forward(frozen.get(), &args);
  });
  return outputs;
}

// Outputs and gradients.
Arrays train(Case& one, fusedrnn_memory memory = FUSEDRNN_MEMORY_DEFAULT) {
  const Network network(one, memory);
  const std::vector<int64_t>& shape = one.arguments.at("x").shape;
  size_t bytes = 0;
  require(fusedrnn_reserve_bytes(network.handle.get(), {kDLCPU, 0}, shape[0], shape[1], &bytes),
          one);
  std::vector<std::max_align_t> reserve(bytes / sizeof(std::max_align_t) + 1);
  Arrays outputs;
  forward(one, network, outputs, reserve, bytes);

  Tensors tensors;
  add_outputs(one, true, outputs);
  const auto parameters = tensors.list<const DLTensor>(one.arguments, "", network.parameters, "");
  const auto dstates_n = tensors.list<const DLTensor>(one.arguments, "d", network.states, "_n");
  const auto dparameters = tensors.list<DLTensor>(outputs, "d", network.parameters, "");
  const auto dstates = tensors.list<DLTensor>(outputs, "d", network.states, "0");
  fusedrnn_backward_args args{};
  args.size = sizeof args;
  args.network = network.handle.get();
  args.x = tensors.of(one.arguments, "x");
  args.parameters = parameters.data();
  args.lengths = tensors.of(one.arguments, "lengths");
  args.resets = tensors.of(one.arguments, "resets");
  args.reserve = reserve.data();
  args.reserve_bytes = bytes;
  args.training = one.is_noisy();
  args.dropout_seed = one.seed;
  args.dy = tensors.of(one.arguments, "dy");
  args.dstates_n = dstates_n.data();
  args.dx = tensors.of(outputs, "dx");
  args.dparameters = dparameters.data();
  args.dstates = dstates.data();
  require(fusedrnn_backward(&args), one);
  return outputs;
}

// --- the comparison ---

void check_close(const Case& one, const Arrays& got) {
  CHECK_EQUAL(got.size(), one.results.size());
  for (const auto& [name, array] : got) {
    const double error = golden::relative_error(array, one.results.at(name));
    if (!(error <= one.bound)) {
      std::ostringstream what;
      what << one.name << ": " << name << ": relative error " << error << ", bound " << one.bound;
      check::fail(__FILE__, __LINE__, what.str());
    }
  }
}

// All that `some` has is in `all`, bit by bit.
void check_same(const Case& one, const Arrays& some, const Arrays& all, const char* who) {
  for (const auto& [name, array] : some) {
    if (array.bytes != all.at(name).bytes) {
      check::fail(__FILE__, __LINE__, one.name + ": " + name + " differs " + who);
    }
  }
}

void test(Case& one) {
  const bool trains = one.compute != FUSEDRNN_COMPUTE_INT8;
  CHECK(fusedrnn_set_num_threads(1) == FUSEDRNN_OK);
  const Arrays alone = trains ? train(one) : infer_frozen(one);
  check_close(one, alone);
  if (trains) check_same(one, infer(one), alone, "between inference and training");
  const bool leans = trains && !one.is_noisy();
  if (leans) {
    check_same(one, train(one, FUSEDRNN_MEMORY_LEAN), alone, "between lean memory and the default");
  }
  const bool freezes = !one.is_noisy();
  if (trains && freezes) {
    check_same(one, infer_frozen(one), alone, "between frozen weights and training");
  }

  CHECK(fusedrnn_set_num_threads(2) == FUSEDRNN_OK);
  if (trains) {
    check_same(one, train(one), alone, "between two threads and one");
    if (leans) {
      check_same(one, train(one, FUSEDRNN_MEMORY_LEAN), alone, "between two lean threads and one");
    }
    check_same(one, infer(one), alone, "between inference by two threads and training by one");
  }
  if (freezes) {
    check_same(one, infer_frozen(one), alone, "between frozen weights by two threads and one");
  }
}

#ifdef FUSEDRNN_AMX_EMULATED
void check_tiles_were_used_and_released() {
  if (!amx_emulator::is_installed()) return;  // the CPU has AMX
  CHECK(amx_emulator::products() > 0);
  CHECK(!amx_emulator::is_configured());
}
#endif

// The name of the set that runs; "" where the one that is asked for cannot run here.
std::string isa_in_use() {
  try {
    return fusedrnn::cpu::isa_name(fusedrnn::cpu::selected_isa());
  } catch (const fusedrnn::Error& error) {
    std::cout << error.what() << "\n";
    return "";
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: golden_test FILE [EVERY]: each EVERYth case\n";
    return 2;
  }
  const int64_t every = argc > 2 ? std::stoll(argv[2]) : 1;
  const std::string isa = isa_in_use();
  if (isa.empty()) return kSkipped;
  const char* const asked = getenv("FUSEDRNN_ISA");
  if (asked != nullptr && *asked != '\0') CHECK_EQUAL(isa, asked);

  Reader reader(argv[1]);
  const int64_t cases = reader.number();
  for (int64_t i = 0; i < cases; ++i) {
    Case one = golden::read_case(reader);
    if (i % every == 0) test(one);
  }
  CHECK(cases > 0);
#ifdef FUSEDRNN_AMX_EMULATED
  if (isa == "amx_bf16") check_tiles_were_used_and_released();
#endif
  std::cout << isa << ": " << (cases + every - 1) / every << " cases\n";
  return check::result();
}
