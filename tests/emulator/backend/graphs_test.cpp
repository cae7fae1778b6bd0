// Graphs: those that the library keeps of calls that come again, and those that the caller
// captures.

#include <dlfcn.h>

#include <cstdlib>
#include <vector>

#include "compare.h"
#include "emulator.h"
#include "random_case.h"

namespace {

using namespace backend_test;

// --- the library's own ---

// How many products the library has asked its fake cuBLASLt for: a replayed graph asks for none.
int64_t products_asked_for() {
  const char* const path = std::getenv("FUSEDRNN_CUBLASLT");
  if (path == nullptr) return -1;
  void* const library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
  if (library == nullptr) return 0;  // none so far
  const auto count = reinterpret_cast<int64_t (*)()>(dlsym(library, "fake_cublaslt_products"));
  return count();
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
      const Spec spec{.cell = FUSEDRNN_GRU_RESET_BEFORE, .T = 20, .reverse = reverse};
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
        if (std::getenv("FUSEDRNN_CUBLASLT") != nullptr) CHECK_EQUAL(asked > 0, turn < 2);
        call.free_tape();
      }
    }
  }
}

// More kinds of calls than there are graphs to keep.
void test_graphs_are_forgotten() {
  for (int turn = 0; turn < 2; ++turn) {
    for (int64_t T = 20; T < 90; ++T) {
      const Case one = random_case({.cell = FUSEDRNN_RNN_TANH, .T = T, .B = 1, .I = 1, .H = 1});
      Call call(one, {});
      require(call.infer(), one);
      require(call.infer(), one);
    }
  }
}

// --- the caller's captures ---

void test_a_captured_call_may_be_launched_for_as_long_as_its_graph_is_there() {
  const Spec spec{.cell = FUSEDRNN_GRU, .T = 7};
  const Case one = random_case(spec),
             other = random_case({.cell = FUSEDRNN_GRU, .T = 7, .seed = 5});
  const Arrays expected = train(one), expected_other = train(other);
  const size_t before = emulator_live_bytes();
  for (uint64_t seed = 0; seed < 4; ++seed) {
    emulator_set_seed(seed);
    const Stream stream;
    Call call(one, {.stream = stream.handle});
    CHECK_EQUAL(emulator_begin_capture(stream.handle), 0);
    require(call.forward(), one);
    require(call.backward(), one);
    call.free_tape();
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
  test_graphs_are_forgotten();
  test_a_captured_call_may_be_launched_for_as_long_as_its_graph_is_there();
  test_a_captured_forward_call_leaves_a_tape();
  test_a_failure_in_a_capture();
  CHECK_EQUAL(std::string(emulator_last_error()), "");
  return check::result();
}
