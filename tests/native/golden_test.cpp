// Every case of golden.py through the C ABI: forward, inference and backward, by one thread and
// two, with the instruction set that FUSEDRNN_ISA names. Needs no Python, so that it runs on any
// target.

#include <stdlib.h>
#include <string.h>

#include <iostream>
#include <map>
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

// Fields of a struct of arguments by the names of their arrays.
template <class Args, class Tensor>
struct Field {
  const char* name;
  Tensor* Args::* field;
};
using ForwardInput = Field<fusedrnn_forward_args, const DLTensor>;
using ForwardOutput = Field<fusedrnn_forward_args, DLTensor>;
using FreezeInput = Field<fusedrnn_freeze_args, const DLTensor>;
using BackwardInput = Field<fusedrnn_backward_args, const DLTensor>;
using BackwardOutput = Field<fusedrnn_backward_args, DLTensor>;

using Forward = fusedrnn_forward_args;
using Freeze = fusedrnn_freeze_args;
using Backward = fusedrnn_backward_args;
constexpr ForwardInput kForwardInputs[] = {
    {"x", &Forward::x},       {"w_ih", &Forward::w_ih},       {"w_hh", &Forward::w_hh},
    {"b_ih", &Forward::b_ih}, {"b_hh", &Forward::b_hh},       {"h0", &Forward::h0},
    {"c0", &Forward::c0},     {"lengths", &Forward::lengths}, {"resets", &Forward::resets},
};
constexpr ForwardOutput kForwardOutputs[] = {
    {"y", &Forward::y}, {"h_n", &Forward::h_n}, {"c_n", &Forward::c_n}};
constexpr FreezeInput kFreezeInputs[] = {{"w_ih", &Freeze::w_ih},
                                         {"w_hh", &Freeze::w_hh},
                                         {"b_ih", &Freeze::b_ih},
                                         {"b_hh", &Freeze::b_hh}};
constexpr BackwardInput kBackwardInputs[] = {
    {"dy", &Backward::dy}, {"dh_n", &Backward::dh_n}, {"dc_n", &Backward::dc_n}};
constexpr BackwardOutput kBackwardOutputs[] = {
    {"dx", &Backward::dx},       {"dw_ih", &Backward::dw_ih}, {"dw_hh", &Backward::dw_hh},
    {"db_ih", &Backward::db_ih}, {"db_hh", &Backward::db_hh}, {"dh0", &Backward::dh0},
    {"dc0", &Backward::dc0},
};

// One call's struct, pointing at tensors that it keeps.
template <class Args>
class Call {
 public:
  Call() { args.size = sizeof args; }

  template <class Tensor, size_t n>
  void point(const Field<Args, Tensor> (&fields)[n], Arrays& arrays) {
    for (const auto& [name, field] : fields) {
      const auto found = arrays.find(name);
      if (found == arrays.end()) continue;
      args.*field = &(tensors_[name] = found->second.tensor());
    }
  }

  Args args{};

 private:
  std::map<std::string, DLTensor> tensors_;
};

// Arrays to be written where `fields` and the case's results meet.
template <class Args, size_t n>
void add_outputs(const Field<Args, DLTensor> (&fields)[n], const Case& one, Arrays& arrays) {
  for (const auto& field : fields) {
    const auto found = one.results.find(field.name);
    if (found != one.results.end()) {
      arrays.emplace(field.name, Array(found->second.shape, one.arguments.at("x").type));
    }
  }
}

void require(fusedrnn_status status, const Case& one) {
  if (status != FUSEDRNN_OK) throw std::runtime_error(one.name + ": " + fusedrnn_last_error());
}

void forward(Case& one, Arrays& outputs, fusedrnn_tape** tape) {
  Call<Forward> call;
  call.args.cell = one.cell;
  call.args.reverse = one.reverse;
  call.args.compute = one.compute;
  call.point(kForwardInputs, one.arguments);
  add_outputs(kForwardOutputs, one, outputs);
  call.point(kForwardOutputs, outputs);
  require(fusedrnn_forward(&call.args, tape), one);
}

Arrays infer(Case& one) {
  Arrays outputs;
  forward(one, outputs, nullptr);
  return outputs;
}

// Inference with weights that were frozen before.
Arrays infer_frozen(Case& one) {
  Call<Freeze> freeze;
  freeze.args.cell = one.cell;
  freeze.args.compute = one.compute;
  freeze.point(kFreezeInputs, one.arguments);
  fusedrnn_frozen* frozen = nullptr;
  require(fusedrnn_freeze(&freeze.args, &frozen), one);

  Call<Forward> call;
  call.args.cell = one.cell;
  call.args.reverse = one.reverse;
  call.point(kForwardInputs, one.arguments);
  call.args.w_ih = call.args.w_hh = call.args.b_ih = call.args.b_hh = nullptr;
  Arrays outputs;
  add_outputs(kForwardOutputs, one, outputs);
  call.point(kForwardOutputs, outputs);
  const fusedrnn_status status = fusedrnn_frozen_forward(frozen, &call.args);
  fusedrnn_frozen_free(frozen);
  require(status, one);
  return outputs;
}

// Outputs and gradients.
Arrays train(Case& one) {
  Arrays outputs;
  fusedrnn_tape* tape = nullptr;
  forward(one, outputs, &tape);

  Call<Backward> call;
  call.args.tape = tape;
  call.point(kBackwardInputs, one.arguments);
  add_outputs(kBackwardOutputs, one, outputs);
  call.point(kBackwardOutputs, outputs);
  const fusedrnn_status status = fusedrnn_backward(&call.args);
  fusedrnn_tape_free(tape);
  require(status, one);
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
  if (trains) check_same(one, infer_frozen(one), alone, "between frozen weights and training");

  CHECK(fusedrnn_set_num_threads(2) == FUSEDRNN_OK);
  if (trains) {
    check_same(one, train(one), alone, "between two threads and one");
    check_same(one, infer(one), alone, "between inference by two threads and training by one");
  }
  check_same(one, infer_frozen(one), alone, "between frozen weights by two threads and one");
}

#ifdef FUSEDRNN_AMX_EMULATED
void check_tiles_were_used_and_released() {
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
  if (argc != 2) {
    std::cerr << "usage: golden_test FILE\n";
    return 2;
  }
  const std::string isa = isa_in_use();
  if (isa.empty()) return kSkipped;
  const char* const asked = getenv("FUSEDRNN_ISA");
  if (asked != nullptr && *asked != '\0') CHECK_EQUAL(isa, asked);

  Reader reader(argv[1]);
  const int64_t cases = reader.number();
  for (int64_t i = 0; i < cases; ++i) {
    Case one = golden::read_case(reader);
    test(one);
  }
  CHECK(cases > 0);
#ifdef FUSEDRNN_AMX_EMULATED
  if (isa == "amx_bf16") check_tiles_were_used_and_released();
#endif
  std::cout << isa << ": " << cases << " cases\n";
  return check::result();
}
