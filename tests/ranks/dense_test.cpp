/// @file
/// Dense gradients of several ranks: the weights are those of one process, bit for bit.
#include <concepts>
#include <cstdint>
#include <pushpull/pushpull.hpp>
#include <type_traits>
#include <vector>

#include "ranks/same_bits.hpp"
#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
namespace test = pushpull::test;

constexpr auto push = [](auto& store, std::size_t, auto const& keys, auto const& gradients, auto&) {
  store.push(keys, gradients).wait();
};
constexpr auto push_one_by_one = [](auto& store, std::size_t, auto const& keys, auto const& gradients, auto&) {
  for (std::size_t i = 0; i < keys.size(); ++i) store.push(keys[i], gradients[i]);
};

}  // namespace

TEST_CASE("pushes over ranks give the bits of one process: adam", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::adam{.learning_rate = 0.1}, c);
  };
  for (int const ranks : {1, 2, 3, 7}) {
    test::require_same_bits<float>(ranks, 1, 20, make, push);
    test::require_same_bits<float>(ranks, 2, 5, make, push_one_by_one);
    test::require_same_bits<float>(ranks, 2, 5, make, test::push_and_pull);
    test::require_same_bits<float>(ranks, 2, 3, make, test::push_and_pull, {.mirrored = false});
  }
}

TEST_CASE("pushes over ranks give the bits of one process: bfloat16 with masters of float", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<pp::bfloat16>(devices, update::momentum{.learning_rate = 0.1},
                                           pp::element::master<float>{}, c);
  };
  for (int const ranks : {2, 4})
    for (bool const mirrored : {true, false})
      test::require_same_bits<pp::bfloat16>(ranks, 1, 20, make, test::push_and_pull, {.mirrored = mirrored});
}

TEST_CASE("pushes over ranks give the bits of one process: keys that are not cut", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::sgd{.learning_rate = 0.1}, pp::placement::owners{}, c);
  };
  for (int const ranks : {2, 4}) test::require_same_bits<float>(ranks, 2, 5, make, test::push_and_pull);
}

TEST_CASE("pushes over ranks give the bits of one process with equal slices: keys placed as in MXNet", "[ranks]") {
  for (int const ranks : {1, 2, 3, 4, 7})
    for (std::int64_t const bound : {1031, 1032, 1000000}) {  // 1031 is the size of a key
      CAPTURE(bound);
      auto const make = [&](auto const& devices, auto const& c) {
        auto const rule = update::adam{.learning_rate = 0.1};
        if constexpr (std::same_as<std::remove_cvref_t<decltype(c)>, pp::comm::single>) {
          return pp::make_kv_store<float>(devices, rule, c);
        } else {
          return pp::make_kv_store<float>(devices, rule, pp::placement::mxnet{bound}, c);
        }
      };
      test::require_same_bits<float>(ranks, bound == 1031 ? 2 : 1, 3, make, test::push_and_pull);
    }
}

TEST_CASE("without a rule a push over ranks stores their sum, or their mean", "[ranks]") {
  test::require_same_bits<double>(
      3, 1, 3, [](auto const& devices, auto const& c) { return pp::make_kv_store<double>(devices, c); }, push);
  test::require_same_bits<float>(
      2, 2, 3,
      [](auto const& devices, auto const& c) {
        return pp::make_kv_store<float>(devices, update::sgd{}, pp::reduce::mean{}, pp::synchronous{}, c);
      },
      test::push_and_pull);
}
