// Exchanges through global memory: right ones in 200 orders, and that wrong ones are found.
#include "kernels/exchange.h"

#include "fixture.h"

using namespace fixture;                  // NOLINT: a test program
using namespace fusedrnn::cuda::kernels;  // NOLINT
using fusedrnn::cuda::device::launch;

namespace {

constexpr LaunchShape kTwoBlocks{.grid_x = 2, .block = 32, .cooperative = true, .name = "message"};

template <Order kOrder>
bool message_arrives() {
  const DeviceArray<float> data(32), out(32);
  const DeviceArray<uint32_t> flag(1);
  launch(message<kOrder>, kTwoBlocks, nullptr, data.data(), flag.data(), out.data());
  const std::vector<float> received = out.read();
  for (size_t i = 0; i < 32; ++i) {
    if (received[i] != static_cast<float>(i + 1)) return false;
  }
  return true;
}

// In how many of the drawn orders.
template <class Test>
int failures(int orders, const Test& passes) {
  int count = 0;
  for (int seed = 1; seed <= orders; ++seed) {
    emulator_set_seed(static_cast<uint64_t>(seed));
    if (!passes()) ++count;
  }
  emulator_set_seed(0);
  return count;
}

void test_messages() {
  CHECK(message_arrives<Order::right>());
  CHECK_EQUAL(failures(200, message_arrives<Order::right>), 0);
  CHECK(failures(20, message_arrives<Order::no_release>) > 0);
  CHECK(failures(20, message_arrives<Order::no_acquire>) > 0);
}

void test_tagged_ring() {
  const DeviceArray<uint64_t> words(16);
  const DeviceArray<float> out(4);
  launch(tagged_ring, {.grid_x = 4, .block = 32, .cooperative = true, .name = "ring"}, nullptr,
         words.data(), out.data(), 9);
  CHECK(out.read() == (std::vector<float>{3, 0, 1, 2}));  // 9 blocks to the right
}

void test_grid_barrier() {
  const DeviceArray<float> numbers(std::vector<float>{1, 2, 3, 0, 0, 0});
  const DeviceArray<uint32_t> counter(1);
  launch(neighbours, {.grid_x = 3, .block = 64, .cooperative = true, .name = "neighbours"}, nullptr,
         numbers.data(), counter.data(), 2);
  const std::vector<float> sums = numbers.read();
  CHECK((std::vector<float>(sums.begin(), sums.begin() + 3)) == (std::vector<float>{8, 9, 7}));
}

bool neighbours_agree_without_fences() {
  const DeviceArray<float> numbers(3), out(3);
  const DeviceArray<uint32_t> counter(1);
  launch(neighbours_without_fences,
         {.grid_x = 3, .block = 32, .cooperative = true, .name = "unfenced"}, nullptr,
         numbers.data(), counter.data(), out.data());
  return out.read() == std::vector<float>(3, 1.0f);
}

// Blocks of a launch that is not cooperative run in turns.
void test_waits_that_never_end() {
  const DeviceArray<float> numbers(6);
  const DeviceArray<uint32_t> counter(1), flags(2);
  CHECK_ERROR(error_of_launch(neighbours, {.grid_x = 3, .block = 64, .name = "turns"},
                              numbers.data(), counter.data(), 2),
              "kernel turns, block (", "thread 0: waits for ever in a load at ");
  CHECK_ERROR(error_of_launch(waits_for_a_flag, {.block = 32, .name = "waits"}, flags.data()),
              "kernel waits, block (0, 0, 0), thread ", "waits for ever in a load at ",
              "exchange.h:");
}

void test_a_weak_flag_is_never_seen() {
  const DeviceArray<uint32_t> flags(2);
  const LaunchShape shape{.grid_x = 2, .block = 1, .cooperative = true, .name = "weak"};
  CHECK_EQUAL(error_of_launch(raises_weakly, shape, flags.data()), "");
  const DeviceArray<uint32_t> others(2);
  emulator_set_seed(3);
  CHECK_ERROR(error_of_launch(raises_weakly, shape, others.data()), "kernel weak",
              "waits for ever in a load at exchange.h:");
  emulator_set_seed(0);
}

void test_atomics() {
  const DeviceArray<uint32_t> counter(1), seen(256);
  launch(counts, {.grid_x = 2, .name = "counts"}, nullptr, counter.data(), seen.data());
  CHECK_EQUAL(counter.read()[0], 256u);
  CHECK(seen.read() == std::vector<uint32_t>(256, 1));
}

void test_wide_accesses() {
  using fusedrnn::cuda::device::Bits128;
  const DeviceArray<Bits128> words(std::vector<Bits128>{{1, 2}, {0, 0}, {0, 0}});
  launch(wide, {.block = 1, .name = "wide"}, nullptr, words.data());
  const std::vector<Bits128> read = words.read();
  CHECK(read[1].low == 2 && read[1].high == 1);
  CHECK(read[2].low == 1 && read[2].high == 2);
  CHECK_ERROR(error_of_launch(misaligned, {.block = 1, .name = "misaligned"},
                              reinterpret_cast<float*>(words.data())),
              "kernel misaligned", "an access of 8 bytes is not aligned to its size");
}

}  // namespace

int main() {
  test_messages();
  in_many_orders(20, [] {
    test_tagged_ring();
    test_grid_barrier();
    test_atomics();
  });
  CHECK(failures(20, neighbours_agree_without_fences) > 0);
  test_waits_that_never_end();
  test_a_weak_flag_is_never_seen();
  test_wide_accesses();
  return check::result();
}
