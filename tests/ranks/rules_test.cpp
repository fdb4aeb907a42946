/// @file
/// Rules with sums over elements, over several ranks: norms and skipped steps are those of one process, bit for bit.
#include <limits>
#include <pushpull/pushpull.hpp>
#include <vector>

#include "ranks/same_bits.hpp"
#include "support/catch.hpp"
#include "support/expect.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
namespace test = pushpull::test;

}  // namespace

TEST_CASE("norms over ranks are those of one process: a clipped lamb", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::clip_global_norm(10.0) | update::lamb{.learning_rate = 0.1}, c);
  };
  for (int const ranks : {2, 3, 4, 7}) test::require_same_bits<float>(ranks, 1, 20, make, test::push_and_pull);
  test::require_same_bits<float>(2, 2, 5, make, test::push_and_pull);
}

TEST_CASE("ranks skip the same steps, and their scales agree", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices,
                                    update::dynamic_loss_scale{.initial = 4} | update::adam{.learning_rate = 0.1}, c);
  };
  auto const one_is_infinite = [](auto& store, std::size_t step, auto const& keys, auto gradients, auto& outputs) {
    if (step % 3 == 1 && store.rank() == store.num_workers() - 1)
      gradients[4].back()[4000] = std::numeric_limits<float>::infinity();
    store.pushpull(keys, gradients, outputs).wait();
    test::expect(store.steps(keys[1]) ==
                 static_cast<std::int64_t>(step + 1 - (step + 1) / 3 - ((step + 1) % 3 == 2 ? 1 : 0)));
  };
  for (int const ranks : {2, 3}) test::require_same_bits<float>(ranks, 2, 7, make, one_is_infinite);
}

TEST_CASE("statistics of rows and columns over ranks are those of one process", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::centralize{} | update::adafactor{}, c);
  };
  test::require_same_bits<float>(3, 1, 5, make, test::push_and_pull);
}

TEST_CASE("states of 8 bits over ranks are those of one process", "[ranks][state_codecs]") {
  auto const make = [](auto const& devices, auto const& c) {
    using codecs = pp::state_codecs<256, pp::codec::linear, pp::codec::of<"exp_avg_sq", pp::codec::unsigned_float8>>;
    return pp::make_kv_store<float>(devices, update::adam{.learning_rate = 0.1}, codecs{}, c);
  };
  test::require_same_bits<float>(3, 1, 5, make, test::push_and_pull);
  test::require_same_bits<float>(2, 2, 5, make, test::push_and_pull);
}
