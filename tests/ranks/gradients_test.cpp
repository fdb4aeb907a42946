/// @file
/// Gradients of several ranks that are accumulated or compressed: the weights are those of one process, bit for bit.
#include <pushpull/pushpull.hpp>
#include <vector>

#include "ranks/same_bits.hpp"
#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
namespace test = pushpull::test;

}  // namespace

TEST_CASE("micro-batches over ranks make the steps of one process", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::adam{.learning_rate = 0.1}, pp::accumulate{3}, c);
  };
  auto const with_one_key_ahead = [](auto& store, std::size_t step, auto const& keys, auto const& gradients,
                                     auto& out) {
    if (step == 1) store.push(keys[1], gradients[1]);
    if (step == 3) store.accumulate(keys[4], gradients[4]);
    store.pushpull(keys, gradients, out).wait();
  };
  for (int const ranks : {2, 3}) test::require_same_bits<float>(ranks, 2, 8, make, with_one_key_ahead);
}

TEST_CASE("codes over ranks are those of one process: two bits", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::sgd{.learning_rate = 0.1}, pp::compress::two_bit{0.5F}, c);
  };
  for (int const ranks : {2, 4}) test::require_same_bits<float>(ranks, 2, 6, make, test::push_and_pull);
}

TEST_CASE("codes over ranks are those of one process: one bit, cast, the largest magnitudes", "[ranks]") {
  test::require_same_bits<float>(
      3, 1, 6,
      [](auto const& devices, auto const& c) {
        return pp::make_kv_store<float>(devices, update::sgd{.learning_rate = 0.1}, pp::compress::one_bit{}, c);
      },
      test::push_and_pull);
  test::require_same_bits<float>(
      3, 1, 6,
      [](auto const& devices, auto const& c) {
        return pp::make_kv_store<float>(devices, update::sgd{.learning_rate = 0.1}, pp::compress::cast<pp::bfloat16>{},
                                        c);
      },
      test::push_and_pull);
  test::require_same_bits<float>(
      3, 1, 6,
      [](auto const& devices, auto const& c) {
        return pp::make_kv_store<float>(devices, update::sgd{.learning_rate = 0.1}, pp::compress::top_k{.ratio = 0.1},
                                        c);
      },
      test::push_and_pull);
}
