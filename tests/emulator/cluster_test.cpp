// Clusters, mbarriers and asynchronous copies.
#include "kernels/cluster.h"

#include <cmath>

#include "fixture.h"

using namespace fixture;                  // NOLINT: a test program
using namespace fusedrnn::cuda::kernels;  // NOLINT
using fusedrnn::cuda::device::launch;

namespace {

LaunchShape clusters(int grid, int cluster, int block, const char* name) {
  return {.grid_x = grid, .block = block, .shared_bytes = 1024, .cluster = cluster, .name = name};
}

void test_neighbours() {
  const DeviceArray<float> out(8);
  launch(reads_neighbour<true>, clusters(8, 4, 64, "neighbours"), nullptr, out.data());
  CHECK(out.read() == (std::vector<float>{1, 2, 3, 0, 5, 6, 7, 4}));
}

// Without barriers a block reads what is not there yet, or memory of a block that has ended.
void test_neighbours_without_barriers() {
  bool wrong = false, ended = false;
  in_many_orders(10, [&] {
    const DeviceArray<float> out(8);
    const std::string error =
        error_of_launch(reads_neighbour<false>, clusters(8, 4, 1, "hasty"), out.data());
    if (error.empty()) {
      wrong = wrong || out.read() != std::vector<float>{1, 2, 3, 0, 5, 6, 7, 4};
    } else {
      CHECK_ERROR(error, "kernel hasty", "shared memory of another block, which has ended");
      ended = true;
    }
  });
  CHECK(wrong || ended);
}

void test_exchanges() {
  const DeviceArray<float> out(6);
  launch(exchanges, clusters(6, 3, 32, "exchanges"), nullptr, out.data(), 5);
  CHECK(out.read() == std::vector<float>(6, 6.0f * 3 * 3 * 3 * 3));
}

void test_remote_arrivals() {
  const DeviceArray<float> out(4);
  launch(remote_arrivals, clusters(4, 4, 32, "arrivals"), nullptr, out.data());
  CHECK(out.read() == std::vector<float>(4, 1.0f));
}

void test_wrong_clusters() {
  const DeviceArray<float> out(1);
  CHECK_ERROR(error_of_launch(waits_without_arriving, clusters(2, 2, 32, "waits")), "kernel waits",
              "cluster_wait at ", "without an arrival");
  CHECK_ERROR(error_of_launch(not_all_of_a_cluster, clusters(2, 2, 32, "some")), "kernel some",
              "waits for ever at cluster_sync (32 of 64 arrivals)");
  CHECK_ERROR(error_of_launch(no_such_rank, clusters(2, 2, 32, "rank"), out.data()), "kernel rank",
              "rank 2 of a cluster of 2");
}

void test_copies() {
  std::vector<float> values(512), expected(512);
  for (size_t i = 0; i < 512; ++i) {
    values[i] = static_cast<float>(i);
    expected[i] = 2 * static_cast<float>(i / 128 * 128 + 127 - i % 128);
  }
  const DeviceArray<float> in(values), out(512);
  const LaunchShape shape{.shared_bytes = 1024, .name = "copies"};
  launch(copies<true>, shape, nullptr, in.data(), out.data(), 4);
  CHECK(out.read() == expected);
  launch(copies<false>, shape, nullptr, in.data(), out.data(), 4);
  CHECK(std::isnan(out.read()[0]));  // read before it came
}

void test_bulk_copies() {
  const DeviceArray<float> in(256, 1.0f), out(256);
  const LaunchShape shape{.block = 64, .shared_bytes = 2048, .name = "bulk"};
  launch(copies_in_bulk, shape, nullptr, in.data(), out.data(), 256, 1024);
  CHECK(out.read() == std::vector<float>(256, 2.0f));
  CHECK_ERROR(error_of_launch(copies_in_bulk, shape, in.data(), out.data(), 256, 1040),
              "kernel bulk", "waits for ever in mbarrier_wait at cluster.h:");
  CHECK_ERROR(error_of_launch(copies_in_bulk, shape, in.data(), out.data(), 3, 12),
              "a bulk copy of 12 bytes, no multiple of 16");
  CHECK_ERROR(error_of_launch(copies_in_bulk, shape, in.data(), out.data(), 260, 1040),
              "a range of 260 of 256 elements");
  CHECK_ERROR(error_of_launch(copies_in_bulk, shape, in.data(), out.data(), 256, 0),
              "ended with bulk copies under way");
}

void test_bulk_to_neighbour() {
  const DeviceArray<float> out(32);
  launch(bulk_to_neighbour, clusters(2, 2, 32, "to_neighbour"), nullptr, out.data());
  const std::vector<float> received = out.read();
  CHECK(received[0] == 0 && received[31] == 31);
}

void test_wrong_mbarriers() {
  const LaunchShape shape{.block = 32, .shared_bytes = 16, .name = "wrong"};
  CHECK_ERROR(error_of_launch(uninitialised_mbarrier, shape), "kernel wrong",
              "the mbarrier has not been initialised");
  CHECK_ERROR(error_of_launch(missing_arrival, shape), "waits for ever in mbarrier_wait");
}

}  // namespace

int main() {
  in_many_orders(20, [] {
    test_neighbours();
    test_exchanges();
    test_remote_arrivals();
    test_copies();
    test_bulk_to_neighbour();
  });
  test_neighbours_without_barriers();
  test_wrong_clusters();
  test_bulk_copies();
  test_wrong_mbarriers();
  return check::result();
}
