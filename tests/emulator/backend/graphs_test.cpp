// Graphs: those that the library keeps of calls that come again, and those that the caller
// captures.

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "compare.h"
#include "emulator.h"
#include "random_case.h"

namespace {

using namespace backend_test;

// --- the library's own ---

const char* fake_cublaslt() { return std::getenv("FUSEDRNN_CUBLASLT"); }

template <class Function>
Function* fake_function(const char* name) {
  void* const library = dlopen(fake_cublaslt(), RTLD_NOW);
  return reinterpret_cast<Function*>(dlsym(library, name));
}

// How many products the library has asked its fake cuBLASLt for: a replayed graph asks for none.
int64_t products_asked_for() {
  if (fake_cublaslt() == nullptr) return -1;
  return fake_function<int64_t()>("fake_cublaslt_products")();
}

// Hands out what was released before, as frameworks' allocators do.
class CachingAllocator {
 public:
  ~CachingAllocator() {
    for (const Block& block : blocks_) emulator_release(block.memory);
  }
  fusedrnn_allocator interface{
      this,
      [](void* self, size_t bytes, void*) {
        return static_cast<CachingAllocator*>(self)->allocate(bytes);
      },
      [](void* self, void* memory, size_t, void*) {
        for (Block& block : static_cast<CachingAllocator*>(self)->blocks_) {
          if (block.memory == memory) block.used = false;
        }
      }};

 private:
  struct Block {
    size_t bytes;
    void* memory;
    bool used;
  };

  void* allocate(size_t bytes) {
    for (Block& block : blocks_) {
      if (block.used || block.bytes != bytes) continue;
      block.used = true;
      return block.memory;
    }
    blocks_.push_back({bytes, emulator_allocate(bytes), true});
    return blocks_.back().memory;
  }

  std::vector<Block> blocks_;
};

// Whatever lies at the addresses by then is what a replayed graph reads.
void test_calls_that_come_again_are_replayed() {
  for (const bool reverse : {false, true}) {
    for (const bool host_masks : {false, true}) {
      CachingAllocator allocator;
      // Launches are as long as the lengths say where the host knows them: other lengths are no
      // call that comes again.
      const Spec spec{
          .cell = "gru_reset_before", .T = 20, .reverse = reverse, .lengths = !host_masks};
      const Case first = random_case(spec);
      const Stream stream;
      Call call(
          first,
          {.stream = stream.handle, .allocator = &allocator.interface, .host_masks = host_masks});
      for (unsigned turn = 0; turn < 5; ++turn) {
        Spec other = spec;
        other.seed = turn + 2;
        const Case one = random_case(other);
        const Arrays expected = train(one);
        call.write(one);
        const int64_t before = products_asked_for();
        require(call.forward(), one);
        require(call.backward(), one);
        const int64_t asked = products_asked_for() - before;
        check_same(call.outputs(), expected, "in turn " + std::to_string(turn));
        // The first time it runs, the second it is captured.
        if (fake_cublaslt() != nullptr) CHECK_EQUAL(asked > 0, turn < 2);
        call.free_reserve();
      }
    }
  }
}

// Where the host knows lengths a graph belongs to them, in any order: which sequence has which is
// read from the device.
void test_graphs_of_lengths() {
  const std::vector<std::vector<int64_t>> turns = {{20, 3, 7}, {7, 20, 3}, {20, 3, 7},
                                                   {3, 7, 20}, {20, 3, 8}, {3, 7, 20}};
  for (const bool reverse : {false, true}) {
    CachingAllocator allocator;
    const auto turn = [&](size_t i) {
      Case one = random_case({.T = 20, .reverse = reverse, .seed = static_cast<unsigned>(i) + 1});
      std::memcpy(one.arguments.at("lengths").bytes.data(), turns[i].data(), 24);
      return one;
    };
    const Case first = turn(0);
    Call call(first, {.allocator = &allocator.interface, .host_masks = true});
    for (size_t i = 0; i < turns.size(); ++i) {
      const Case one = turn(i);
      Call alone(one, {.host_masks = true});
      require(alone.forward(), one);
      require(alone.backward(), one);
      call.write(one);
      const int64_t before = products_asked_for();
      require(call.forward(), one);
      require(call.backward(), one);
      const int64_t asked = products_asked_for() - before;
      check_same(call.outputs(), alone.outputs(), "in turn " + std::to_string(i));
      if (fake_cublaslt() != nullptr) CHECK_EQUAL(asked > 0, i < 2 || i == 4);
      call.free_reserve();
    }
  }
}

void check_moved(const Case& one, const std::string& name, const Array& values,
                 const Arrays& expected) {
  CachingAllocator allocator;
  Call call(one, {.allocator = &allocator.interface});
  for (int turn = 0; turn < 4; ++turn) {
    if (turn == 3) call.move(name, values);
    require(call.forward(), one);
    require(call.backward(), one);
    call.free_reserve();
  }
  check_same(call.outputs(), expected, "with " + name + " elsewhere");
}

// A graph belongs to all addresses of its call: what has moved is read and written where it is.
void test_a_call_with_another_address_is_another_call() {
  Spec spec{.T = 20, .lengths = false, .resets = false};
  const Case one = random_case(spec);
  spec.seed = 2;
  const Case other = random_case(spec);
  for (const auto& [name, values] : other.arguments) {
    Case moved = one;
    moved.arguments.insert_or_assign(name, values);
    check_moved(one, name, values, train(moved));
  }
  const Arrays expected = train(one);
  for (const auto& [name, nothing] : one.results) check_moved(one, name, nothing, expected);
}

// Nor does it write into the reserve of earlier calls, which another call has by now.
void test_a_call_with_another_reserve_is_another_call() {
  Spec spec{.T = 20, .lengths = false, .resets = false};
  const Case one = random_case(spec);
  spec.seed = 2;
  const Case other = random_case(spec);
  CachingAllocator allocator;
  Call call(one, {.allocator = &allocator.interface}),
      next(other, {.allocator = &allocator.interface});
  for (int turn = 0; turn < 3; ++turn) {
    require(call.forward(), one);
    require(call.backward(), one);
    call.free_reserve();
  }
  require(next.forward(), other);
  require(call.forward(), one);
  require(next.backward(), other);
  require(call.backward(), one);
  check_same(next.outputs(), train(other), "with the reserve of calls before");
  check_same(call.outputs(), train(one), "with another reserve");
}

// Hands out one place again and again, as large as asked for.
struct OnePlace {
  static constexpr size_t kBytes = size_t{1} << 20;
  char* place = static_cast<char*>(emulator_allocate(kBytes));
  size_t asked = 0;  // of the last allocation
  fusedrnn_allocator interface{this,
                               [](void* self, size_t bytes, void*) -> void* {
                                 auto& own = *static_cast<OnePlace*>(self);
                                 own.asked = bytes;
                                 return own.place;
                               },
                               [](void*, void*, size_t, void*) {}};
  ~OnePlace() { emulator_release(place); }

  void clear() {
    const std::vector<char> zeros(kBytes);
    emulator_copy_to_device(place, zeros.data(), kBytes);
  }
  bool is_clear_behind() const {
    std::vector<char> content(kBytes);
    emulator_copy_from_device(content.data(), place, kBytes);
    return std::all_of(content.begin() + static_cast<ptrdiff_t>(asked), content.end(),
                       [](char byte) { return byte == 0; });
  }
};

// A call with masks of the host needs more memory than the same call with masks of the device,
// which may be given the same address and find its graph.
void test_a_graph_stays_in_the_memory_of_each_call() {
  if (fake_cublaslt() != nullptr) return;  // its workspace is larger than a place
  OnePlace memory;
  const Case one = random_case({.cell = "gru", .T = 20});
  const Options options{.allocator = &memory.interface, .host_masks = true};
  Call call(one, options);
  for (int turn = 0; turn < 3; ++turn) require(call.infer(), one);
  Call on_device(one, {});
  call.masks() = on_device.masks();
  memory.clear();
  require(call.infer(), one);
  CHECK(memory.is_clear_behind());
}

// More kinds of calls than there are graphs to keep.
void test_graphs_are_forgotten() {
  for (int turn = 0; turn < 2; ++turn) {
    for (int64_t T = 20; T < 90; ++T) {
      const Case one = random_case({.cell = "rnn_tanh", .T = T, .B = 1, .I = 1, .H = 1});
      Call call(one, {});
      require(call.infer(), one);
      require(call.infer(), one);
    }
  }
}

// --- the caller's captures ---

void test_a_captured_call_may_be_launched_for_as_long_as_its_graph_is_there() {
  const Spec spec{.cell = "gru", .T = 7};
  const Case one = random_case(spec), other = random_case({.cell = "gru", .T = 7, .seed = 5});
  const Arrays expected = train(one), expected_other = train(other);
  const size_t before = emulator_live_bytes();
  for (uint64_t seed = 0; seed < 4; ++seed) {
    emulator_set_seed(seed);
    const Stream stream;
    Call call(one, {.stream = stream.handle});
    CHECK_EQUAL(emulator_begin_capture(stream.handle), 0);
    require(call.forward(), one);
    require(call.backward(), one);
    call.free_reserve();
    void* const graph = emulator_end_capture(stream.handle);
    CHECK(graph != nullptr);
    CHECK(std::isnan(call.outputs().at("y")[0]));  // nothing has run
    for (int i = 0; i < 3; ++i) {
      call.write(i == 1 ? other : one);
      CHECK_EQUAL(emulator_launch_graph(graph, stream.handle), 0);
      // A call that runs beside it has memory of its own.
      Call beside(one, {});
      require(beside.forward(), one);
      check_same(call.outputs(), i == 1 ? expected_other : expected,
                 "in launch " + std::to_string(i));
    }
    emulator_release_graph(graph);
  }
  emulator_set_seed(0);
  train(one);  // what graphs leave behind is released by the next call
  CHECK_EQUAL(emulator_live_bytes(), before);
}

void test_a_captured_forward_call_leaves_a_tape() {
  const Case one = random_case({.T = 7});
  const Arrays expected = train(one);
  const size_t before = emulator_live_bytes();
  {
    const Stream stream;
    Call call(one, {.stream = stream.handle});
    CHECK_EQUAL(emulator_begin_capture(stream.handle), 0);
    require(call.forward(), one);
    void* const graph = emulator_end_capture(stream.handle);
    CHECK_EQUAL(emulator_launch_graph(graph, stream.handle), 0);
    require(call.backward(), one);
    check_same(call.outputs(), expected, "from a tape that was captured");
    emulator_release_graph(graph);
    require(call.backward(), one);  // the tape is still there
    check_same(call.outputs(), expected, "after the graph of its forward call");
  }
  train(one);
  CHECK_EQUAL(emulator_live_bytes(), before);
}

// The tape of a captured forward call is used outside of a graph, on another stream, and is freed,
// as its graph is, while that call runs.
void test_a_captured_tape_is_released_behind_its_calls() {
  const Case one = random_case({.T = 7});
  const Arrays expected = train(one);
  for (uint64_t seed = 1; seed < 9; ++seed) {
    const Stream first, second;
    Call call(one, {.stream = first.handle}), next(one, {});
    CHECK_EQUAL(emulator_begin_capture(first.handle), 0);
    require(call.forward(), one);
    void* const graph = emulator_end_capture(first.handle);
    CHECK_EQUAL(emulator_launch_graph(graph, first.handle), 0);
    emulator_synchronize(first.handle);
    emulator_release_graph(graph);
    emulator_set_seed(seed);
    require(call.backward(second.handle), one);
    call.free_reserve();
    require(next.forward(), one);  // releases what graphs leave behind
    check_same(call.outputs(), expected, "from a tape that was captured and freed");
  }
  emulator_set_seed(0);
}

// cuBLASLt that does not answer in a capture is asked again after it.
void test_algorithms_are_asked_for_again() {
  if (fake_cublaslt() == nullptr) return;
  auto* const refuse = fake_function<void(int)>("fake_cublaslt_refuse");
  const Case one = random_case({.cell = "rnn_tanh", .T = 2, .I = 3, .H = 9});
  Call call(one, {});
  refuse(1);
  const int64_t before = products_asked_for();
  const int64_t plain_before = plugin().plain_products();
  require(call.infer(), one);
  CHECK_EQUAL(products_asked_for(), before);
  const int64_t plain_after = plugin().plain_products();
  CHECK(plain_after > plain_before);  // nobody has asked for them
  refuse(0);
  require(call.infer(), one);
  CHECK(products_asked_for() > before);
  CHECK_EQUAL(plugin().plain_products(), plain_after);
}

void test_a_failure_in_a_capture() {
  const Case one = random_case({});
  const Stream stream;
  Call call(one, {.stream = stream.handle});
  CHECK_EQUAL(emulator_begin_capture(stream.handle), 0);
  emulator_fail_allocation_after(0);
  CHECK(call.forward() == FUSEDRNN_OUT_OF_MEMORY);
  emulator_fail_allocation_after(-1);
  require(call.forward(), one);  // the capture goes on
  void* const graph = emulator_end_capture(stream.handle);
  CHECK(graph != nullptr);
  emulator_release_graph(graph);
}

}  // namespace

int main() {
  test_calls_that_come_again_are_replayed();
  test_graphs_of_lengths();
  test_a_call_with_another_address_is_another_call();
  test_a_call_with_another_reserve_is_another_call();
  test_a_graph_stays_in_the_memory_of_each_call();
  test_graphs_are_forgotten();
  test_a_captured_call_may_be_launched_for_as_long_as_its_graph_is_there();
  test_a_captured_forward_call_leaves_a_tape();
  test_a_captured_tape_is_released_behind_its_calls();
  test_algorithms_are_asked_for_again();
  test_a_failure_in_a_capture();
  CHECK_EQUAL(std::string(emulator_last_error()), "");
  return check::result();
}
