// Barriers: those that all reach, and the errors of those that not all reach.
#include "kernels/barriers.h"

#include <set>

#include "fixture.h"
#include "kernels/shared.h"

using namespace fixture;                  // NOLINT: a test program
using namespace fusedrnn::cuda::kernels;  // NOLINT
using fusedrnn::cuda::device::launch;

namespace {

void test_named_barriers() {
  const DeviceArray<float> out(7);
  launch(producer_and_consumer, {.block = 64, .shared_bytes = 128, .name = "producer"}, nullptr,
         out.data(), 7);
  CHECK(out.read() == (std::vector<float>{0, 2, 4, 6, 8, 10, 12}));
}

void test_block_barriers() {
  CHECK_ERROR(error_of_launch(other_branches, {.grid_x = 2, .name = "branches"}),
              "kernel branches, block (", "thread ",
              "sync_threads at barriers.h:", "others of its threads arrived at barriers.h:");
  CHECK_ERROR(error_of_launch(ends_before_the_barrier, {.name = "ends"}), "kernel ends, block (0",
              "sync_threads", "barriers.h:");
  CHECK_ERROR(error_of_launch(ends_behind_others, {.name = "behind"}), "kernel behind",
              "sync_threads", "barriers.h:");
}

// In order, the threads that wait come first; the first that ends is the error.
void test_the_thread_that_ended_is_named() {
  CHECK_ERROR(error_of_launch(ends_behind_others, {.name = "behind"}),
              "kernel behind, block (0, 0, 0), thread 32: ended where others wait for it at "
              "sync_threads (32 of 128 arrivals), barriers.h:");
}

void test_warp_barriers() {
  const DeviceArray<float> out(128);
  CHECK_ERROR(
      error_of_launch(lanes_missing_in_a_shuffle, {.block = 32, .name = "lanes"}, out.data()),
      "kernel lanes", "thread ", "barriers.h:");
  CHECK_ERROR(error_of_launch(lanes_missing_in_sync_warp, {.name = "missing"}), "kernel missing",
              "sync_warp");
  CHECK_ERROR(error_of_launch(shuffle_of_any_block, {.block = 40, .name = "forty"}, out.data()),
              "kernel forty", "a shuffle at barriers.h:", "the warp has 8 of 32 lanes");
  CHECK_EQUAL(error_of_launch(shuffle_of_any_block, {.block = 64, .name = "all"}, out.data()), "");
}

void test_wrong_named_barriers() {
  CHECK_ERROR(error_of_launch(waits_for_each_other, {.block = 64, .name = "deadlock"}),
              "kernel deadlock, block (0, 0, 0), thread ", "waits for ever at the named barrier",
              "(32 of 64 arrivals)", "barriers.h:");
  CHECK_ERROR(error_of_launch(counts_that_differ, {.block = 96, .name = "differ"}), "kernel differ",
              "the named barrier 1", "others arrived for");
  CHECK_ERROR(error_of_launch(half_a_warp_at_a_barrier, {.block = 64, .name = "half"}),
              "expected a multiple of 32 threads, got 48");
  CHECK_ERROR(error_of_launch(barrier_of_no_number, {.block = 64, .name = "none"}),
              "expected 1 to 15, got 16");
}

// Some order shows it, and no number is what memory held before.
void test_forgotten_barrier() {
  bool right = false, wrong = false;
  in_many_orders(5, [&] {
    const DeviceArray<float> out(64);
    launch(forgotten_barrier, {.block = 64, .shared_bytes = 256, .name = "forgotten"}, nullptr,
           out.data());
    for (const float value : out.read()) (value == 1 ? right : wrong) = true;
  });
  CHECK(right && wrong);
}

void test_shared_memory() {
  const DeviceArray<float> out(32);
  const LaunchShape shape{.grid_x = 2, .block = 32, .shared_bytes = 64, .name = "shared"};
  CHECK_EQUAL(error_of_launch(reads_shared, shape, out.data(), 16, 15, 0), "");
  CHECK(out.read()[0] != out.read()[0]);  // what was never written is NaN
  CHECK_ERROR(error_of_launch(reads_shared, shape, out.data(), 16, 16, 0), "kernel shared, block (",
              "index 16 of 16 elements");
  CHECK_ERROR(error_of_launch(reads_shared, shape, out.data(), 16, -1, 0), "index -1 of 16");
  CHECK_ERROR(error_of_launch(reads_shared, shape, out.data(), 16, 12, 4), "index 12 of 12");
  CHECK_ERROR(error_of_launch(reads_shared, shape, out.data(), 16, 0, 17), "offset 17 of 16");
  CHECK_ERROR(error_of_launch(reads_shared, shape, out.data(), 17, 0, 0),
              "takes 68 bytes, launched with 64");
  const DeviceArray<int> places(2);
  CHECK_EQUAL(error_of_launch(carves, {.shared_bytes = 129, .name = "carves"}, places.data()), "");
  CHECK(places.read() == (std::vector<int>{16, 128}));
}

void test_shapes() {
  const auto refused = [](const LaunchShape& shape) {
    try {
      launch(ends_behind_others, shape, nullptr);
      return std::string();
    } catch (const fusedrnn::Error& error) {
      return std::string(error.what());
    }
  };
  CHECK_ERROR(refused({.grid_x = 0, .name = "empty"}), "launch of empty: a grid without blocks");
  CHECK_ERROR(refused({.block = 1025, .name = "large"}), "launch of large: a block of no thread");
  CHECK_ERROR(refused({.shared_bytes = 228 * 1024, .name = "greedy"}), "launch of greedy: ");
  CHECK_ERROR(refused({.grid_x = 3, .cluster = 2, .name = "odd"}), "launch of odd: a cluster");
  CHECK_ERROR(refused({.grid_x = 1000, .cooperative = true, .name = "crowd"}),
              "launch of crowd: too many blocks in cooperative launch");
}

}  // namespace

int main() {
  in_many_orders(10, test_named_barriers);
  in_many_orders(3, [] {
    test_block_barriers();
    test_warp_barriers();
    test_wrong_named_barriers();
  });
  test_the_thread_that_ended_is_named();
  test_forgotten_barrier();
  test_shared_memory();
  test_shapes();
  return check::result();
}
