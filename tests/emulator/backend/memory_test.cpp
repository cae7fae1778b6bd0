// Memory and streams: what is allocated is released, in order, and calls on any stream give what
// they give alone.

#include <thread>
#include <vector>

#include "compare.h"
#include "emulator.h"
#include "random_case.h"

namespace {

using namespace backend_test;

// --- the caller's allocator ---

// Counts, and refuses the allocation after `left` more.
struct Allocator {
  int64_t live = 0, allocations = 0, left = -1;
  size_t refused = 0;
  fusedrnn_allocator interface{this,
                               [](void* self, size_t bytes, void*) {
                                 return static_cast<Allocator*>(self)->allocate(bytes);
                               },
                               [](void* self, void* memory, size_t, void* stream) {
                                 --static_cast<Allocator*>(self)->live;
                                 emulator_release_on(memory, 0, stream);
                               }};

  void* allocate(size_t bytes) {
    if (left == 0) {
      refused = bytes;
      return nullptr;
    }
    --left;
    ++live;
    ++allocations;
    return emulator_allocate(bytes);
  }
};

void test_allocator_of_the_caller() {
  const Case one = random_case({});
  Allocator allocator;
  check_same(train(one, {.allocator = &allocator.interface}), train(one),
             "with an allocator of the caller's");
  CHECK_EQUAL(allocator.allocations, 3);  // what the tape keeps, and a workspace a call
  CHECK_EQUAL(allocator.live, 0);
}

// Nothing is written, nothing leaks, and the message says how much was asked for.
void test_no_memory_from_the_allocator() {
  const Case one = random_case({});
  const Stream stream;
  for (int64_t allowed = 0; allowed < 2; ++allowed) {
    Allocator allocator;
    allocator.left = allowed;
    Call call(one, {.stream = stream.handle, .allocator = &allocator.interface});
    CHECK(call.forward() == FUSEDRNN_OUT_OF_MEMORY);
    CHECK_EQUAL(std::string(plugin().last_error()),
                "out of memory: " + std::to_string(allocator.refused) + " bytes on cuda:0");
    CHECK_EQUAL(allocator.live, 0);
    CHECK(std::isnan(call.outputs().at("y")[0]));
  }
  Allocator allocator;
  Call call(one, {.allocator = &allocator.interface});
  require(call.forward(), one);
  allocator.left = 0;
  CHECK(call.backward() == FUSEDRNN_OUT_OF_MEMORY);
  CHECK(std::isnan(call.outputs().at("dx")[0]));
  allocator.left = -1;
  require(call.backward(), one);  // the tape is as it was
  check_same(call.outputs(), train(one), "after a failure");
  call.free_reserve();
  CHECK_EQUAL(allocator.live, 0);
}

void test_no_memory_from_the_pool() {
  const Case one = random_case({});
  for (int64_t allowed = 0; allowed < 2; ++allowed) {
    Call call(one, {});
    const size_t before = emulator_live_bytes();
    emulator_fail_allocation_after(allowed);
    CHECK(call.forward() == FUSEDRNN_OUT_OF_MEMORY);
    emulator_fail_allocation_after(-1);
    CHECK(std::string(plugin().last_error()).starts_with("out of memory: "));
    CHECK_EQUAL(emulator_live_bytes(), before);
    require(call.forward(), one);
  }
}

// --- reserves ---

struct Block {
  explicit Block(size_t size) : bytes(size), memory(emulator_allocate(size)) { fill(0xff); }
  ~Block() { emulator_release(memory); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  std::vector<unsigned char> read() const {
    std::vector<unsigned char> content(bytes);
    emulator_copy_from_device(content.data(), memory, bytes);
    return content;
  }
  void write(const std::vector<unsigned char>& content) const {
    emulator_copy_to_device(memory, content.data(), bytes);
  }
  void fill(unsigned char byte) const { write(std::vector<unsigned char>(bytes, byte)); }

  const size_t bytes;
  void* const memory;
};

size_t reserve_bytes(const Call& call) {
  size_t bytes = 0;
  CHECK(plugin().reserve_bytes(&call.forward_call().problem, &bytes) == FUSEDRNN_OK);
  return bytes;
}

// Whatever memory it is in, and however often the call came before; backward does not write to it.
void test_a_reserve_may_be_anywhere() {
  for (const char* cell : {"gru", "gru_reset_before", "lstm"}) {
    for (const bool masks : {false, true}) {
      const Case one = random_case({.cell = cell, .T = 20, .lengths = masks, .resets = masks});
      const Arrays expected = train(one);
      Call call(one, {});
      const Block first(reserve_bytes(call)), second(first.bytes), copy(first.bytes);
      const fusedrnn::CudaPlace place{};
      for (int turn = 0; turn < 6; ++turn) {
        const Block& reserve = turn % 2 == 0 ? first : second;
        call.forward_call().reserve = reserve.memory;
        require(plugin().forward(&call.forward_call(), &call.masks(), &place), one);
        const auto left = reserve.read();
        copy.write(left);
        reserve.fill(0xff);
        call.backward_call().reserve = copy.memory;
        require(plugin().backward(&call.backward_call(), &call.masks(), &place), one);
        check_same(call.outputs(), expected, "from a reserve that was copied");
        CHECK(copy.read() == left);
      }
    }
  }
}

// Its size does not depend on masks, and there is none where there are no steps.
void test_sizes_of_reserves() {
  const Call full(random_case({}), {});
  const Call bare(random_case({.lengths = false, .resets = false}), {});
  CHECK_EQUAL(reserve_bytes(full), reserve_bytes(bare));
  for (const auto& [T, B] : {std::pair{0, 3}, {5, 0}}) {
    fusedrnn::Problem empty = full.forward_call().problem;
    empty.T = T;
    empty.B = B;
    size_t bytes = 1;
    CHECK(plugin().reserve_bytes(&empty, &bytes) == FUSEDRNN_OK);
    CHECK_EQUAL(bytes, size_t{0});
  }
}

// --- kept memory ---

// One call after another leaves its reserve in the same memory, each on a stream of its own.
void test_kept_memory_shows_what_calls_before_wrote() {
  const Case a = random_case({.cell = "gru", .T = 20, .seed = 1});
  const Case b = random_case({.cell = "gru", .T = 20, .seed = 2});
  const Arrays expected = train(b);
  for (uint64_t seed = 1; seed < 9; ++seed) {
    emulator_set_seed(seed);
    const Stream first, second, third;
    Call call_a(a, {}), call_b(b, {});
    fusedrnn::CudaKept* kept = nullptr;
    void* reserve = nullptr;
    fusedrnn::CudaPlace place{0, first.handle, nullptr};
    require(plugin().keep(reserve_bytes(call_a), &place, &kept, &reserve), a);
    const auto use = [&](void* stream, const Case& one, const auto& call) {
      place.stream = stream;
      require(plugin().enter(kept, &place), one);
      require(call(), one);
      require(plugin().leave(kept, &place), one);
    };
    for (Call* call : {&call_a, &call_b}) {
      call->forward_call().reserve = reserve;
      use(call == &call_a ? first.handle : second.handle, a,
          [&] { return plugin().forward(&call->forward_call(), &call->masks(), &place); });
    }
    call_b.backward_call().reserve = reserve;
    use(third.handle, b,
        [&] { return plugin().backward(&call_b.backward_call(), &call_b.masks(), &place); });
    plugin().free_kept(kept);
    emulator_synchronize(second.handle);  // where y is written
    check_same(call_b.outputs(), expected, "from kept memory that two calls wrote");
  }
  emulator_set_seed(0);
}

void test_kept_memory_of_no_bytes() {
  Allocator allocator;
  for (const bool own : {false, true}) {
    const fusedrnn::CudaPlace place{0, nullptr, own ? &allocator.interface : nullptr};
    fusedrnn::CudaKept* kept = nullptr;
    void* memory = nullptr;
    CHECK(plugin().keep(0, &place, &kept, &memory) == FUSEDRNN_OK);
    CHECK(memory != nullptr);
    plugin().free_kept(kept);
  }
  CHECK_EQUAL(allocator.live, 0);
}

// --- tapes ---

void test_a_tape_serves_many_calls() {
  for (const char* cell : {"gru", "gru_reset_before", "lstm"}) {
    const Case one = random_case({.cell = cell, .reverse = true});
    const Arrays expected = train(one);
    Call call(one, {});
    require(call.forward(), one);
    for (int i = 0; i < 5; ++i) require(call.backward(), one);
    check_same(call.outputs(), expected, "after the fifth backward pass");
  }
}

// Forward on one stream, which then ends; backward on others; the tape is freed while they run.
void test_a_tape_outlives_its_streams() {
  const Case one = random_case({.cell = "gru", .T = 20});
  const Arrays expected = train(one);
  const size_t before = emulator_live_bytes();
  for (uint64_t seed = 1; seed < 6; ++seed) {
    emulator_set_seed(seed);
    const Stream second, third;
    auto first = std::make_unique<Stream>();
    Call call(one, {.stream = first->handle});
    require(call.forward(), one);
    require(call.backward(second.handle), one);
    emulator_synchronize(second.handle);
    check_same(call.outputs(), expected, "on another stream");
    require(call.backward(third.handle), one);
    first.reset();
    call.free_reserve();
    // Whatever comes next may take the memory of the tape, once it is free.
    const Case other = random_case({.cell = "gru", .T = 20, .seed = static_cast<unsigned>(seed)});
    Call next(other, {});
    require(next.forward(), other);
    check_same(call.outputs(), expected, "when the tape was freed while the call ran");
  }
  emulator_set_seed(0);
  CHECK_EQUAL(emulator_live_bytes(), before);
}

// The per-thread default stream has one name and is another in each thread.
void test_a_tape_on_the_streams_of_threads() {
  void* const own = reinterpret_cast<void*>(2);
  const Case one = random_case({.cell = "gru", .T = 20});
  const Arrays expected = train(one);
  for (uint64_t seed = 1; seed < 9; ++seed) {
    emulator_set_seed(seed);
    Call call(one, {.stream = own}), next(one, {});
    std::thread([&] { require(call.forward(), one); }).join();
    require(call.backward(), one);
    std::thread([&] { require(call.backward(), one); }).join();
    call.free_reserve();
    require(next.forward(), one);
    check_same(call.outputs(), expected, "on the streams of threads");
  }
  emulator_set_seed(0);
}

void test_two_streams_at_once() {
  const Case a = random_case({.T = 12, .seed = 1}), b = random_case({.T = 12, .seed = 2});
  const Arrays expected_a = train(a), expected_b = train(b);
  for (uint64_t seed = 1; seed < 6; ++seed) {
    emulator_set_seed(seed);
    const Stream first, second;
    Call call_a(a, {.stream = first.handle}), call_b(b, {.stream = second.handle});
    require(call_a.forward(), a);
    require(call_b.forward(), b);
    require(call_b.backward(), b);
    require(call_a.backward(), a);
    check_same(call_a.outputs(), expected_a, "beside another stream");
    check_same(call_b.outputs(), expected_b, "beside another stream");
  }
  emulator_set_seed(0);
}

void test_many_threads() {
  const Case a = random_case({.T = 16, .seed = 1});
  const Case b = random_case({.cell = "gru", .T = 16, .seed = 2});
  const Arrays expected_a = train(a), expected_b = train(b);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      const Case& one = i % 2 == 0 ? a : b;
      const Stream stream;
      for (int turn = 0; turn < 4; ++turn) {
        check_same(train(one, {.stream = stream.handle}), i % 2 == 0 ? expected_a : expected_b,
                   "beside other threads");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

void test_memory_does_not_grow() {
  const Case one = random_case({.T = 20});
  Call call(one, {});
  size_t after_ten = 0;
  for (int i = 0; i < 40; ++i) {
    require(call.forward(), one);
    require(call.backward(), one);
    call.free_reserve();
    if (i == 9) after_ten = emulator_live_bytes();
  }
  CHECK_EQUAL(emulator_live_bytes(), after_ten);
}

}  // namespace

int main() {
  test_allocator_of_the_caller();
  test_no_memory_from_the_allocator();
  test_no_memory_from_the_pool();
  test_a_reserve_may_be_anywhere();
  test_sizes_of_reserves();
  test_kept_memory_shows_what_calls_before_wrote();
  test_kept_memory_of_no_bytes();
  test_a_tape_serves_many_calls();
  test_a_tape_outlives_its_streams();
  test_a_tape_on_the_streams_of_threads();
  test_two_streams_at_once();
  test_many_threads();
  test_memory_does_not_grow();
  CHECK_EQUAL(std::string(emulator_last_error()), "");
  return check::result();
}
