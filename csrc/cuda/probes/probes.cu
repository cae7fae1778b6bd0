// Latencies of the primitives that persistent kernels are made of, on the current device: a line
// each, `name value unit`. Needs no input; the exit status says whether every result was right.
#include "cuda/probes/kernels.h"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <utility>

#include "cuda/device/launch.h"

namespace fusedrnn::cuda::probes {
namespace {

constexpr int kRepetitions = 5;  // the fastest counts
constexpr int kFewRounds = 100;  // fewer measure nothing, and are not repeated
constexpr int kHopper = 9;
constexpr size_t kSharedBytes = 1024;        // more than the probes of one word take
constexpr size_t kWeightBytes = 200 * 1024;  // of a block that keeps its share of the weights

class Scratch {
 public:
  Scratch() { check(cudaMalloc(&memory_, kBytes), "cudaMalloc"); }
  ~Scratch() { cudaFree(memory_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  uint32_t* result() const { return static_cast<uint32_t*>(memory_); }
  uint64_t* words() const { return static_cast<uint64_t*>(memory_) + 32; }  // of another line
  void clear() const { check(cudaMemsetAsync(memory_, 0, kBytes, nullptr), "cudaMemsetAsync"); }
  uint32_t read() const {
    uint32_t value = 0;
    check(cudaMemcpy(&value, memory_, sizeof value, cudaMemcpyDeviceToHost), "cudaMemcpy");
    return value;
  }

 private:
  static constexpr size_t kBytes = 512;
  void* memory_ = nullptr;
};

class Clock {
 public:
  Clock() {
    check(cudaEventCreate(&start_), "cudaEventCreate");
    check(cudaEventCreate(&end_), "cudaEventCreate");
  }
  ~Clock() {
    cudaEventDestroy(start_);
    cudaEventDestroy(end_);
  }
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;

  template <class Work>
  double nanoseconds(const Work& work) {
    check(cudaEventRecord(start_, nullptr), "cudaEventRecord");
    work();
    check(cudaEventRecord(end_, nullptr), "cudaEventRecord");
    check(cudaEventSynchronize(end_), "cudaEventSynchronize");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, start_, end_), "cudaEventElapsedTime");
    return 1e6 * static_cast<double>(milliseconds);
  }

 private:
  cudaEvent_t start_ = nullptr, end_ = nullptr;
};

void keep() {}

class Probes {
 public:
  explicit Probes(int rounds) : rounds_(rounds) {}

  // launch(n): n rounds, which leave expected(n), after reset(). The difference between many rounds
  // and few is free of the launch itself.
  template <class Launch, class Expected, class Reset = void (*)()>
  void measure(const std::string& name, int rounds_of_one, const Launch& launch,
               const Expected& expected, const Reset& reset = keep) {
    const int few = rounds_ / 10;
    const double many_ns = fastest(rounds_, launch, expected, reset),
                 few_ns = fastest(few, launch, expected, reset);
    const double each = (many_ns - few_ns) / (rounds_ - few) / rounds_of_one;
    std::printf("%s %.2f ns\n", name.c_str(), each);
    std::fflush(stdout);
  }

  const Scratch& scratch() const { return scratch_; }
  bool all_right() const { return all_right_; }

 private:
  template <class Launch, class Expected, class Reset>
  double fastest(int rounds, const Launch& launch, const Expected& expected, const Reset& reset) {
    double least = 0;
    const int repetitions = rounds_ < kFewRounds ? 1 : kRepetitions;
    for (int i = 0; i < repetitions; ++i) {
      scratch_.clear();
      reset();
      const double ns = clock_.nanoseconds([&] { launch(rounds); });
      least = i == 0 || ns < least ? ns : least;
      const uint32_t found = scratch_.read(), wanted = expected(rounds);
      if (found != wanted) {
        std::fprintf(stderr, "expected %u, got %u\n", wanted, found);
        all_right_ = false;
      }
    }
    return least;
  }

  int rounds_;
  Scratch scratch_;
  Clock clock_;
  bool all_right_ = true;
};

void probe_grid(Probes& probes, int multiprocessors) {
  const Scratch& scratch = probes.scratch();
  const auto blocks = static_cast<uint32_t>(multiprocessors);
  const device::LaunchShape shape{
      .grid_x = multiprocessors, .block = kThreads, .cooperative = true, .name = "grid"};
  probes.measure(
      "grid_barrier", 1,
      [&](int n) { device::launch(grid_barriers, shape, nullptr, scratch.result(), n); },
      [&](int n) { return blocks * static_cast<uint32_t>(n); });
  probes.measure(
      "flag_in_data_one_way", 2,
      [&](int n) {
        device::launch(word_ping_pong, shape, nullptr, scratch.words(), scratch.result(), n);
      },
      [](int n) { return 2 * static_cast<uint32_t>(n); });
}

device::LaunchShape one_cluster(int size) {
  return {.grid_x = size,
          .block = kThreads,
          .shared_bytes = kSharedBytes,
          .cluster = size,
          .name = "cluster"};
}

bool can_launch(const device::LaunchShape& shape) {
  try {
    device::launch(nothing, shape, nullptr);
  } catch (const std::exception&) {
    return false;
  }
  const bool ran = cudaStreamSynchronize(nullptr) == cudaSuccess;
  cudaGetLastError();
  return ran;
}

void probe_clusters(Probes& probes) {
  const Scratch& scratch = probes.scratch();
  int largest = 1;
  for (int size = 2; size <= 16; size *= 2) {
    if (!can_launch(one_cluster(size))) break;
    largest = size;
    const auto threads = [size](int) { return static_cast<uint32_t>(size * kThreads); };
    const std::string suffix = "_" + std::to_string(size);
    probes.measure(
        "cluster_barrier" + suffix, 1,
        [&](int n) {
          device::launch(cluster_barriers<false>, one_cluster(size), nullptr, scratch.result(), n);
        },
        threads);
    probes.measure(
        "cluster_barrier_relaxed" + suffix, 1,
        [&](int n) {
          device::launch(cluster_barriers<true>, one_cluster(size), nullptr, scratch.result(), n);
        },
        threads);
  }
  std::printf("largest_cluster %d blocks\n", largest);
  if (largest == 1) return;
  probes.measure(
      "dsmem_load", 1,
      [&](int n) { device::launch(remote_loads, one_cluster(2), nullptr, scratch.result(), n); },
      [](int n) { return static_cast<uint32_t>(n) * 17 % 64; });
  probes.measure(
      "dsmem_store_one_way", 2,
      [&](int n) {
        device::launch(cluster_ping_pong, one_cluster(2), nullptr, scratch.result(), n);
      },
      [](int n) { return 2 * static_cast<uint32_t>(n); });
}

template <int kBlocks>
void probe_exchange_in_cluster(Probes& probes) {
  constexpr size_t kBytes = 2 * kBlocks * kThreads * sizeof(uint64_t) + 64;
  const device::LaunchShape shape{.grid_x = kBlocks,
                                  .block = kThreads,
                                  .shared_bytes = kBytes,
                                  .cluster = kBlocks,
                                  .name = "exchange"};
  const device::LaunchShape full{.grid_x = kBlocks,
                                 .block = kThreads,
                                 .shared_bytes = kWeightBytes,
                                 .cluster = kBlocks,
                                 .name = "full"};
  const std::string suffix = "_" + std::to_string(kBlocks);
  std::printf("active_clusters%s_of_200KB %d clusters\n", suffix.c_str(),
              device::active_clusters(cluster_exchange<kBlocks>, full));
  probes.measure(
      "cluster_exchange" + suffix, 1,
      [&](int n) {
        device::launch(cluster_exchange<kBlocks>, shape, nullptr, probes.scratch().result(), n);
      },
      [](int) { return static_cast<uint32_t>(kBlocks * kThreads); });
}

void probe_exchange_over_grid(Probes& probes, int multiprocessors, int rounds) {
  const device::LaunchShape shape{
      .grid_x = multiprocessors, .block = kThreads, .cooperative = true, .name = "slots"};
  const size_t bytes = static_cast<size_t>(rounds) * static_cast<size_t>(multiprocessors) * kSlots *
                       sizeof(device::Bits128);
  void* slots = nullptr;
  check(cudaMalloc(&slots, bytes), "cudaMalloc");
  probes.measure(
      "grid_exchange", 1,
      [&](int n) {
        device::launch(grid_exchange, shape, nullptr, static_cast<device::Bits128*>(slots),
                       probes.scratch().result(), n);
      },
      [multiprocessors](int) { return static_cast<uint32_t>(multiprocessors * kThreads); },
      [&] { check(cudaMemsetAsync(slots, 0xff, bytes, nullptr), "cudaMemsetAsync"); });
  check(cudaFree(slots), "cudaFree");
}

void probe_mma(Probes& probes, int multiprocessors) {
  constexpr int kChains = 8, kWarps = kThreads / device::kWarp;
  const auto sum = [](int n) { return 16 * static_cast<uint32_t>(n); };
  uint32_t* const result = probes.scratch().result();
  const device::LaunchShape one_warp{.grid_x = 1, .block = device::kWarp, .name = "mma"};
  probes.measure(
      "mma_n8_latency", 1,
      [&](int n) { device::launch(mma_chains<1>, one_warp, nullptr, result, n); }, sum);
  const device::LaunchShape all{.grid_x = multiprocessors, .block = kThreads, .name = "mma"};
  probes.measure(
      "mma_n8_one_sm_each", kChains * kWarps,
      [&](int n) { device::launch(mma_chains<kChains>, all, nullptr, result, n); }, sum);
}

int run(int rounds) {
  int id = 0, major = 0, multiprocessors = 0;
  check(cudaGetDevice(&id), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, id), "capability");
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, id),
        "multiprocessors");
  Probes probes(rounds);
  bool all_ran = true;
  const auto attempt = [&all_ran](const auto& probe) {
    try {
      probe();
    } catch (const std::exception& error) {  // one that cannot run keeps none of the others away
      std::fprintf(stderr, "%s\n", error.what());
      all_ran = false;
    }
  };
  attempt([&] { probe_grid(probes, multiprocessors); });
  attempt([&] { probe_exchange_over_grid(probes, multiprocessors, rounds); });
  attempt([&] { probe_mma(probes, multiprocessors); });
  if (major >= kHopper) {
    attempt([&] { probe_clusters(probes); });
    attempt([&] { probe_exchange_in_cluster<8>(probes); });
    attempt([&] { probe_exchange_in_cluster<16>(probes); });
  }
  return all_ran && probes.all_right() ? 0 : 1;
}

}  // namespace
}  // namespace fusedrnn::cuda::probes

// fusedrnn_probes [rounds], at least 10.
int main(int count, char** arguments) {
  try {
    const int rounds = count > 1 ? std::atoi(arguments[1]) : 2000;
    return fusedrnn::cuda::probes::run(rounds < 10 ? 10 : rounds);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
