// Trains an LSTM with a linear read-out to repeat what it heard three steps before, then freezes
// it, writes a model file and steps through it:
//
//   train echo.frnn
//
// 1 where the loss has not fallen to a tenth.
#include <cmath>
#include <cstdio>
#include <fusedrnn/fusedrnn.hpp>
#include <random>

namespace {

constexpr std::int64_t kSteps = 24, kBatch = 32, kHidden = 24, kDelay = 3;
constexpr int kUpdates = 300;

// Adam (Kingma and Ba 2015) on one vector.
class Adam {
 public:
  explicit Adam(std::size_t count) : m_(count), v_(count) {}
  void step(std::vector<float>& values, const std::vector<float>& gradient, int t) {
    constexpr double kRate = 0.01, kBeta1 = 0.9, kBeta2 = 0.999;
    const double rate = kRate * std::sqrt(1 - std::pow(kBeta2, t)) / (1 - std::pow(kBeta1, t));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double g = gradient[i];
      m_[i] += (1 - kBeta1) * (g - m_[i]);
      v_[i] += (1 - kBeta2) * (g * g - v_[i]);
      values[i] -= static_cast<float>(rate * m_[i] / (std::sqrt(v_[i]) + 1e-8));
    }
  }

 private:
  std::vector<double> m_, v_;
};

int run(const char* path) {
  using namespace fusedrnn;
  const Network network(stack("lstm", 1, kHidden));
  auto weights = Arrays<float>::of_parameters(network);
  auto gradients = Arrays<float>::of_parameters(network);
  std::mt19937 random(1);
  std::uniform_real_distribution<float> initial(-0.2f, 0.2f), signal(-1, 1);
  std::vector<Adam> optimizers;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    for (float& w : weights[i]) w = initial(random);
    optimizers.emplace_back(weights[i].size());
  }
  std::vector<float> read_out(kHidden), dread_out(kHidden);
  for (float& w : read_out) w = initial(random);
  Adam read_out_optimizer(read_out.size());

  std::vector<float> x(kSteps * kBatch), h(x.size() * kHidden), dh(h.size());
  Reserve reserve(network, kSteps, kBatch);
  Forward pass;
  pass.x = {x.data(), {kSteps, kBatch, 1}};
  pass.parameters = std::as_const(weights).tensors();
  pass.y = {h.data(), {kSteps, kBatch, kHidden}};
  pass.reserve = reserve.data();
  pass.reserve_bytes = reserve.bytes();
  Backward back;
  back.x = pass.x;
  back.parameters = pass.parameters;
  back.reserve = reserve.data();
  back.reserve_bytes = reserve.bytes();
  back.dy = {dh.data(), {kSteps, kBatch, kHidden}};
  back.dparameters = gradients.tensors();

  double first = 0, last = 0;
  for (int update = 1; update <= kUpdates; ++update) {
    for (float& value : x) value = signal(random);
    forward(network, pass);
    // The loss is the mean square of read_out . h_t - x_{t - delay}; dh is its gradient.
    double loss = 0;
    std::fill(dread_out.begin(), dread_out.end(), 0.0f);
    const auto count = static_cast<float>(kSteps * kBatch);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t at = i * kHidden, delay = kDelay * kBatch;
      float error = i < delay ? 0 : -x[i - delay];
      for (std::size_t k = 0; k < read_out.size(); ++k) error += read_out[k] * h[at + k];
      loss += error * error / count;
      for (std::size_t k = 0; k < read_out.size(); ++k) {
        dread_out[k] += 2 * error * h[at + k] / count;
        dh[at + k] = 2 * error * read_out[k] / count;
      }
    }
    backward(network, back);
    for (std::size_t i = 0; i < weights.size(); ++i) {
      optimizers[i].step(weights[i], gradients[i], update);
    }
    read_out_optimizer.step(read_out, dread_out, update);
    if (update == 1) first = loss;
    last = loss;
    if (update % 60 == 0 || update == 1) std::printf("update %3d  loss %.5f\n", update, loss);
  }

  Frozen(network, weights).save(path);
  Stream<float> stream(Frozen::load(path), kBatch);
  double difference = 0;
  forward(network, pass);
  for (std::size_t t = 0; t < kSteps; ++t) {
    const float* const step = stream.step(&x[t * kBatch]);
    for (std::size_t i = 0; i < kBatch * kHidden; ++i) {
      difference += std::abs(step[i] - h[t * kBatch * kHidden + i]);
    }
  }
  std::printf("loss %.5f -> %.5f; the file's steps differ by %g\n", first, last, difference);
  return last < first / 10 && difference == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: train FILE\n");
    return 2;
  }
  try {
    return run(argv[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "train: %s\n", error.what());
    return 1;
  }
}
