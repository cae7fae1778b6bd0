// fusedrnn.hpp from C++17: training, freezing, files and streams through it, and what it throws.
#include <fusedrnn/fusedrnn.hpp>

#include <cmath>
#include <cstdio>
#include <cstring>

namespace {

using namespace fusedrnn;

int failures = 0;

#define CHECK(condition)                                                   \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                          \
    }                                                                      \
  } while (0)

constexpr std::int64_t T = 4, B = 2, I = 3, H = 5;

float random_value() {
  static std::uint32_t state = 1;
  state = state * 1664525u + 1013904223u;
  return static_cast<float>(state >> 8) / (1 << 23) - 1;
}

template <class Numbers>
void fill(Numbers& numbers) {
  for (auto& number : numbers) number = random_value();
}

Arrays<float> random_weights(const Network& network) {
  auto weights = Arrays<float>::of_parameters(network);
  for (std::size_t i = 0; i < weights.size(); ++i) fill(weights[i]);
  return weights;
}

template <class Body>
void expect_error(const Body& body, fusedrnn_status status, const char* words) {
  try {
    body();
  } catch (const Error& error) {
    CHECK(error.status() == status);
    if (std::strstr(error.what(), words) == nullptr) std::fprintf(stderr, "%s\n", error.what());
    CHECK(std::strstr(error.what(), words) != nullptr);
    return;
  }
  CHECK(!"expected an error");
}

void test_description() {
  const Network network(stack("lstm_projection", I, H, 2, true, 4));
  const fusedrnn_network_info info = network.info();
  CHECK(info.num_runs == 4 && info.input_size == I && info.output_size == 8);
  CHECK(network.parameter(0).shape[0] == 4 * H && network.state(1).shape[0] == H);
  const auto weights = Arrays<float>::of_parameters(network);
  CHECK(weights.size() == static_cast<std::size_t>(info.num_parameters));
  CHECK(weights[0].size() == 4 * H * I && std::strcmp(weights.info(0).name, "w_ih") == 0);
  const Network copy = network;
  CHECK(copy.get() == network.get());
}

// A gradient against differences, in float64.
void test_training() {
  const Network network(stack("gru", I, H, 1), dtype_of<double>());
  auto weights = Arrays<double>::of_parameters(network);
  for (std::size_t i = 0; i < weights.size(); ++i) fill(weights[i]);
  std::vector<double> x(T * B * I), y(T * B * H), dy(y.size()), dx(x.size());
  fill(x);
  fill(dy);
  const std::vector<std::int32_t> lengths = {4, 2};
  Reserve reserve(network, T, B);
  auto gradients = Arrays<double>::of_parameters(network);

  Forward forward_call;
  forward_call.x = {x.data(), {T, B, I}};
  forward_call.parameters = std::as_const(weights).tensors();
  forward_call.lengths = {lengths.data(), {B}};
  forward_call.y = {y.data(), {T, B, H}};
  forward_call.reserve = reserve.data();
  forward_call.reserve_bytes = reserve.bytes();
  forward(network, forward_call);

  Backward backward_call;
  backward_call.x = forward_call.x;
  backward_call.parameters = forward_call.parameters;
  backward_call.lengths = forward_call.lengths;
  backward_call.reserve = reserve.data();
  backward_call.reserve_bytes = reserve.bytes();
  backward_call.dy = {dy.data(), {T, B, H}};
  backward_call.dx = {dx.data(), {T, B, I}};
  backward_call.dparameters = gradients.tensors();
  backward(network, backward_call);

  forward_call.reserve = nullptr;
  forward_call.reserve_bytes = 0;
  const auto loss = [&] {
    forward(network, forward_call);
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
    return sum;
  };
  for (double* const variable : {&x[1], &weights[0][2], &weights[1][7], &weights[3][H]}) {
    const double before = *variable, step = 1e-5;
    *variable = before + step;
    const double above = loss();
    *variable = before - step;
    const double difference = (above - loss()) / (2 * step);
    *variable = before;
    const double gradient = variable == &x[1]            ? dx[1]
                            : variable == &weights[0][2] ? gradients[0][2]
                            : variable == &weights[1][7] ? gradients[1][7]
                                                         : gradients[3][H];
    CHECK(std::abs(difference - gradient) < 1e-8 && gradient != 0);
  }
}

void test_frozen_and_streams(const char* path) {
  const Network network(stack("lstm", I, H, 2));
  const Arrays<float> weights = random_weights(network);
  std::vector<float> x(T * B * I), y(T * B * H), same(y.size());
  fill(x);
  const Frozen frozen(network, weights);
  Forward call;
  call.x = {x.data(), {T, B, I}};
  call.y = {y.data(), {T, B, H}};
  frozen.forward(call);

  frozen.save(path);
  const Frozen loaded = Frozen::load(path);
  std::remove(path);
  CHECK(loaded.network().info().output_size == H);
  Stream<float> first(loaded, B);
  Stream<float> stream = std::move(first);
  for (int round = 0; round < 2; ++round) {
    for (std::int64_t t = 0; t < T; ++t) {
      const float* const h = stream.step(&x[static_cast<std::size_t>(t * B * I)]);
      CHECK(std::memcmp(h, &y[static_cast<std::size_t>(t * B * H)], B * H * sizeof *h) == 0);
    }
    stream.reset();
  }

  Forward plain = call;
  plain.parameters = weights.tensors();
  plain.y = {same.data(), {T, B, H}};
  forward(network, plain);
  CHECK(same == y);
}

void test_errors() {
  const Network network(stack("gru", I, H));
  expect_error([] { Network(stack("grr", I, H)); }, FUSEDRNN_INVALID_VALUE,
               "cell: expected one of");
  expect_error([&] { network.parameter(9); }, FUSEDRNN_INVALID_VALUE, "index: expected 0 to 3");
  expect_error([&] { Frozen(network, ConstTensors{nullptr, nullptr, nullptr, nullptr}); },
               FUSEDRNN_INVALID_VALUE, "w_ih: expected an array, got none");
  expect_error([] { Frozen::load("no/such/file"); }, FUSEDRNN_FILE_ERROR, "no/such/file: No such");
  expect_error([] { Frozen::read("nothing", 7); }, FUSEDRNN_INVALID_VALUE, "expected a model file");
  const Frozen frozen(network, random_weights(network));
  expect_error([&] { Stream<double>(frozen, 1); }, FUSEDRNN_INVALID_TYPE, "the type");
  expect_error([&] { Stream<float>(frozen, 1).step(nullptr); }, FUSEDRNN_INVALID_VALUE, "x: ");
  const Network both(stack("gru", I, H, 1, true));
  expect_error([&] { Stream<float>(Frozen(both, random_weights(both)), 1); },
               FUSEDRNN_INVALID_VALUE, "forward direction");
  std::vector<float> x(T * B * I), y(T * B * H);
  Forward call;
  call.x = {x.data(), {T, B, I + 1}};
  call.y = {y.data(), {T, B, H}};
  expect_error([&] { frozen.forward(call); }, FUSEDRNN_INVALID_VALUE,
               "x: expected shape (4, 2, 3)");
}

}  // namespace

int main(int, char** argv) {
  test_description();
  test_training();
  test_frozen_and_streams((std::string(argv[0]) + ".frnn").c_str());
  test_errors();
  if (failures > 0) std::fprintf(stderr, "%d failures\n", failures);
  return failures > 0;
}
