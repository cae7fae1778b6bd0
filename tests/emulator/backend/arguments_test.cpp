// What arguments can be beyond the golden cases: masks of every kind, arrays that repeat rows, NaN
// where nothing may be read, outputs that are not wanted, many sequences, refusals.

#include <limits>

#include "compare.h"
#include "emulator.h"
#include "random_case.h"

namespace {

using namespace backend_test;
using fusedrnn::Sequence;

// --- masks ---

void test_masks_of_the_host_travel_in_pieces() {
  // More lengths and more resets than one launch carries.
  for (const bool reverse : {false, true}) {
    const Case one =
        random_case({.cell = "rnn_tanh", .T = 60, .B = 500, .I = 1, .H = 1, .reverse = reverse});
    check_same_but_sums(train(one, {.host_masks = true}), train(one),
                        "between masks of host and device");
  }
}

template <class T>
void set_lengths(Case& one, uint8_t code, const std::vector<T>& lengths) {
  Array array({static_cast<int64_t>(lengths.size())}, {code, 8 * sizeof(T), 1});
  std::memcpy(array.bytes.data(), lengths.data(), array.bytes.size());
  one.arguments.insert_or_assign("lengths", std::move(array));
}

template <class T>
void test_lengths_of(uint8_t code, T low, T high) {
  Case expected = random_case({});
  Case one = expected;
  set_lengths<int64_t>(expected, kDLInt, {0, 5, 3});
  // On the device they are not checked but limited to 0..T.
  set_lengths<T>(one, code, {low, high, 3});
  check_same(train(one), train(expected),
             "with lengths of " + std::to_string(sizeof(T)) + " bytes");
}

void test_lengths_of_every_type() {
  test_lengths_of<int8_t>(kDLInt, -128, 127);
  test_lengths_of<int16_t>(kDLInt, -1, 32767);
  test_lengths_of<int32_t>(kDLInt, -5, 6);
  test_lengths_of<int64_t>(kDLInt, std::numeric_limits<int64_t>::min(),
                           std::numeric_limits<int64_t>::max());
  test_lengths_of<uint8_t>(kDLUInt, 0, 255);
  test_lengths_of<uint16_t>(kDLUInt, 0, 65535);
  test_lengths_of<uint32_t>(kDLUInt, 0, 0xffffffffu);
  test_lengths_of<uint64_t>(kDLUInt, 0, std::numeric_limits<uint64_t>::max());
}

// --- what may not be read ---

void fill_padding(Array& array, const std::vector<int64_t>& lengths, double value) {
  const int64_t B = array.shape[1], n = array.shape[2];
  for (int64_t t = 0; t < array.shape[0]; ++t) {
    for (int64_t b = 0; b < B; ++b) {
      if (t < lengths[static_cast<size_t>(b)]) continue;
      for (int64_t i = 0; i < n; ++i) set_number(array, (t * B + b) * n + i, value);
    }
  }
}

void test_padding_is_not_read() {
  for (const char* cell : {"gru", "gru_reset_before", "lstm"}) {
    for (const bool reverse : {false, true}) {
      Case zeros = random_case({.cell = cell, .reverse = reverse});
      const std::vector<int64_t> lengths = {0, 4, 2};
      set_lengths(zeros, kDLInt, lengths);
      Case nans = zeros;
      for (const char* name : {"x", "dy"}) {
        fill_padding(zeros.arguments.at(name), lengths, 0);
        fill_padding(nans.arguments.at(name), lengths, NAN);
      }
      const Arrays got = train(nans);
      check_finite(got, "with NaN in the padding");
      check_same(got, train(zeros), "with NaN in the padding");
    }
  }
}

void test_state_of_an_empty_sequence_touches_no_weight() {
  Case one = random_case({.B = 2});
  set_lengths<int64_t>(one, kDLInt, {0, 5});
  for (int64_t i = 0; i < 6; ++i) set_number(one.arguments.at("h0"), i, NAN);
  Arrays got = train(one);
  for (const char* name : {"y", "h_n"}) got.erase(name);  // h_n is h0
  check_finite(got, "with NaN in the state of an empty sequence");
}

// --- strides ---

void test_rows_that_repeat() {
  Case one = random_case({});
  Array& x = one.arguments.at("x");
  Array& dy = one.arguments.at("dy");
  for (Array* array : {&x, &dy}) {
    const size_t row = static_cast<size_t>(array->shape[2] * 4);
    for (size_t at = row; at < array->bytes.size(); at += row) {
      std::memcpy(array->bytes.data() + at, array->bytes.data(), row);
    }
  }
  const Arrays expected = train(one);
  for (const auto& [t_stride, b_stride] : {std::pair{0, 0}, {0, 4}, {12, 0}}) {
    Call call(one, {});
    for (Sequence* s : {&call.forward_call().x, &call.backward_call().x}) {
      s->t_stride = t_stride;
      s->b_stride = b_stride;
    }
    call.backward_call().dy.t_stride = 0;
    call.backward_call().dy.b_stride = 0;
    require(call.forward(), one);
    require(call.backward(), one);
    for (const auto& [name, array] : call.outputs()) {
      CHECK(golden::relative_error(array, expected.at(name)) < 1e-6);
    }
  }
}

void test_dx_is_added() {
  const DLDataType types[] = {
      {kDLFloat, 32, 1}, {kDLFloat, 64, 1}, {kDLFloat, 16, 1}, {kDLBfloat, 16, 1}};
  for (const DLDataType type : types) {
    for (const Order order : {Order::dense, Order::batch_first, Order::backwards}) {
      const Case one = random_case({.cell = "gru", .type = type});
      const Array plain = train(one, {.order = order}).at("dx");
      const Array added = train(one, {.order = order, .accumulate_dx = true}).at("dx");
      double largest = 0;
      for (int64_t i = 0; i < plain.count(); ++i) {
        largest = std::max(largest, std::abs(added[i] - plain[i] - 1));
      }
      CHECK(largest < (type.bits == 64 ? 1e-15 : type.bits == 32 ? 3e-7 : 8e-3));
    }
  }
}

// --- what is not given or not wanted ---

void test_outputs_that_are_not_wanted() {
  for (const char* cell : {"gru", "lstm"}) {
    const Case one = random_case({.cell = cell});
    const Arrays expected = train(one);
    for (const auto& [wanted, unused] : expected) {
      if (wanted[0] != 'd') continue;
      Case alone = one;
      for (const auto& [name, array] : expected) {
        if (name[0] == 'd' && name != wanted) alone.results.erase(name);
      }
      check_same(train(alone), expected, "where it alone is wanted");
    }
  }
}

void test_inputs_that_are_not_given_are_zeros() {
  Case zeros = random_case({.lengths = false, .resets = false});
  Case absent = zeros;
  for (const char* name : {"b_ih", "b_hh", "h0", "c0", "dy", "dh_n"}) {
    Array& array = zeros.arguments.at(name);
    std::fill(array.bytes.begin(), array.bytes.end(), uint8_t{0});
    absent.arguments.erase(name);
  }
  check_same(train(absent), train(zeros), "without optional inputs");
}

// --- sizes ---

void test_many_sequences() {
  Case one = random_case({.cell = "rnn_identity",
                          .T = 1,
                          .B = 70000,
                          .I = 1,
                          .H = 1,
                          .lengths = false,
                          .resets = false});
  const Arrays got = train(one);
  const Array &x = one.arguments.at("x"), &h0 = one.arguments.at("h0");
  const double w = one.arguments.at("w_ih")[0], u = one.arguments.at("w_hh")[0];
  const double bias = one.arguments.at("b_ih")[0] + one.arguments.at("b_hh")[0];
  double largest = 0;
  for (int64_t b = 0; b < 70000; ++b) {
    largest = std::max(largest, std::abs(got.at("y")[b] - (w * x[b] + u * h0[b] + bias)));
  }
  CHECK(largest < 1e-6);
}

// Sums over very many rows must not lose what a single running sum would.
void test_sums_of_many_rows() {
  Case one = random_case({.cell = "rnn_identity",
                          .T = 1,
                          .B = 40000,
                          .I = 1,
                          .H = 1,
                          .lengths = false,
                          .resets = false});
  Array &x = one.arguments.at("x"), &dy = one.arguments.at("dy");
  one.arguments.erase("dh_n");
  double bias = 0, weight = 0;
  for (int64_t b = 0; b < 40000; ++b) {
    set_number(x, b, std::abs(x[b]));
    set_number(dy, b, std::abs(dy[b]));
    bias += dy[b];
    weight += dy[b] * x[b];
  }
  const Arrays got = train(one);
  CHECK(std::abs(got.at("db_ih")[0] - bias) < 1e-6 * bias);
  CHECK(std::abs(got.at("dw_ih")[0] - weight) < 1e-6 * weight);
}

// --- refusals ---

std::string refusal(Call& call, fusedrnn_status status) {
  CHECK_EQUAL(static_cast<int>(call.infer()), static_cast<int>(status));
  return plugin().last_error();
}

void test_refusals() {
  const Case one = random_case({});
  Call int8(one, {});
  int8.forward_call().problem.compute = fusedrnn::Compute::int8;
  CHECK_EQUAL(refusal(int8, FUSEDRNN_UNAVAILABLE),
              "compute: FUSEDRNN_COMPUTE_INT8 does not run on CUDA devices");

  Call call(one, {});
  const fusedrnn::CudaPlace nowhere{7, nullptr, nullptr};
  const fusedrnn::CudaMasks none;
  CHECK(plugin().forward(&call.forward_call(), &none, &nowhere) != FUSEDRNN_OK);
  CHECK(std::string(plugin().last_error()) != "");
  require(call.infer(), one);  // and the next call is none the worse for it
}

// The caller's current device stays.
void test_another_device() {
  emulator_set_devices(3);
  const Case one = random_case({});
  const Arrays expected = train(one);
  emulator_set_device(1);  // where arrays are made
  {
    Call call(one, {.device = 1});
    emulator_set_device(0);
    require(call.forward(), one);
    require(call.backward(), one);
    CHECK_EQUAL(emulator_get_device(), 0);
    emulator_set_device(1);
    check_same(call.outputs(), expected, "on another device");
  }
  emulator_set_device(0);

  emulator_set_capability(75);
  Call call(one, {.device = 2});
  CHECK_EQUAL(refusal(call, FUSEDRNN_UNAVAILABLE),
              "cuda:2: too old: compute capability 7.5, at least 8.0 is needed");
  CHECK_EQUAL(emulator_get_device(), 0);
  fusedrnn::CudaDevice device{};
  CHECK(plugin().describe_device(2, &device) == FUSEDRNN_OK);
  CHECK_EQUAL(std::string(device.unusable),
              "too old: compute capability 7.5, at least 8.0 is needed");
  CHECK_EQUAL(device.capability, 75);
  emulator_set_capability(90);
  emulator_set_devices(1);
}

void test_devices() {
  char why[128] = "";
  CHECK(plugin().device_count(why, sizeof why) > 0);
  CHECK_EQUAL(std::string(why), "");
  fusedrnn::CudaDevice device{};
  CHECK(plugin().describe_device(0, &device) == FUSEDRNN_OK);
  CHECK_EQUAL(std::string(device.unusable), "");
  CHECK(device.capability >= 80);
  CHECK(device.memory > 0);
  emulator_set_devices(0);
  CHECK_EQUAL(plugin().device_count(why, sizeof why), 0);
  CHECK(std::string(why) != "");
  emulator_set_devices(1);
}

}  // namespace

int main() {
  test_masks_of_the_host_travel_in_pieces();
  test_lengths_of_every_type();
  test_padding_is_not_read();
  test_state_of_an_empty_sequence_touches_no_weight();
  test_rows_that_repeat();
  test_dx_is_added();
  test_outputs_that_are_not_wanted();
  test_inputs_that_are_not_given_are_zeros();
  test_many_sequences();
  test_sums_of_many_rows();
  test_refusals();
  test_another_device();
  test_devices();
  CHECK_EQUAL(std::string(emulator_last_error()), "");
  return check::result();
}
