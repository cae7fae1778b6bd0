// Lengths that the host knows: what is multiplied is what exists, and nothing else changes but how
// sums over all rows group. With the fake cuBLASLt, which counts multiplications.

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <vector>

#include "compare.h"
#include "random_case.h"

namespace {

using namespace backend_test;

using Lengths = std::vector<int64_t>;

int64_t multiplied() {
  void* const library = dlopen(std::getenv("FUSEDRNN_CUBLASLT"), RTLD_NOW);
  return reinterpret_cast<int64_t (*)()>(dlsym(library, "fake_cublaslt_terms"))();
}

Case with_lengths(Case one, const Lengths& lengths) {
  golden::Array array({static_cast<int64_t>(lengths.size())}, {kDLInt, 64, 1});
  std::memcpy(array.bytes.data(), lengths.data(), array.bytes.size());
  one.arguments.insert_or_assign("lengths", std::move(array));
  return one;
}

template <class Work>
int64_t count(const Work& work) {
  const int64_t before = multiplied();
  work();
  return multiplied() - before;
}

struct Counts {
  int64_t inference = 0, training = 0;

  Counts& operator+=(const Counts& other) {
    inference += other.inference;
    training += other.training;
    return *this;
  }
};

Counts counts_of(const Case& one, const Options& options) {
  Call call(one, options);
  return {.inference = count([&] { require(call.infer(), one); }), .training = count([&] {
                                                                     require(call.forward(), one);
                                                                     require(call.backward(), one);
                                                                   })};
}

// As much as dense calls of each sequence would, whatever their order.
void test_multiplications_are_those_of_what_exists(const Spec& wide) {
  const Lengths lengths = wide.reverse ? Lengths{4, 0, 1, 3} : Lengths{1, 3, 3, 2};
  Counts expected;
  for (const int64_t length : lengths) {
    if (length == 0) continue;
    Spec alone = wide;
    alone.T = length;
    alone.B = 1;
    expected += counts_of(random_case(alone), {});
  }
  const Case one = with_lengths(random_case(wide), lengths);
  const Counts found = counts_of(one, {.host_masks = true});
  CHECK_EQUAL(found.inference, expected.inference);
  CHECK_EQUAL(found.training, expected.training);
}

// Where little is missing, and where nothing is there, the batch is a padded one.
void test_few_missing_steps() {
  const Spec wide{.cell = "gru", .T = 20, .B = 2, .lengths = false};
  const Counts dense = counts_of(random_case(wide), {});
  for (const Lengths& lengths : {Lengths{20, 20}, Lengths{20, 18}, Lengths{0, 0}}) {
    const Case one = with_lengths(random_case(wide), lengths);
    CHECK_EQUAL(counts_of(one, {.host_masks = true}).training, dense.training);
  }
  // Where the device alone knows the lengths all steps are taken.
  const Case one = with_lengths(random_case(wide), {20, 17});
  CHECK_EQUAL(counts_of(one, {}).training, dense.training);
  CHECK(counts_of(one, {.host_masks = true}).training < dense.training);
}

// In memory of any strides, and onto what dx holds.
void test_results(const Spec& spec, const Lengths& lengths) {
  const Case one = with_lengths(random_case(spec), lengths);
  for (const bool accumulates : {false, true}) {
    Options options{.order = accumulates ? Order::batch_first : Order::backwards,
                    .accumulate_dx = accumulates};
    const Arrays expected = train(one, options);
    options.host_masks = true;
    check_same_but_sums(train(one, options), expected,
                        std::string("with lengths on the host, ") + spec.cell);
  }
}

}  // namespace

int main() {
  for (const CellTable& cell : kCells) {
    for (const bool reverse : {false, true}) {
      const Spec spec{.cell = cell.name, .T = 4, .B = 4, .reverse = reverse, .lengths = false};
      test_multiplications_are_those_of_what_exists(spec);
      // Also where nothing lives at the last steps.
      const bool is_odd = (&cell - kCells) % 2 != 0;
      test_results(spec, reverse == is_odd ? Lengths{4, 0, 1, 2} : Lengths{0, 2, 1, 2});
    }
  }
  test_few_missing_steps();
  CHECK_EQUAL(std::string(emulator_last_error()), "");
  return check::result();
}
