/// @file
/// The value of a communicator, asked through every store.
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;

/// One of several processes that train stores of their own.
struct world {
  using policy_kind = pp::communicator_tag;

  int number = 0, count = 1;
  std::shared_ptr<int> barriers = std::make_shared<int>(0);

  int rank() const { return number; }
  int size() const { return count; }
  void barrier() const { ++*barriers; }
  static bool ranks_are_independent() { return true; }
};

/// Its ranks would have to exchange slices.
struct connected {
  using policy_kind = pp::communicator_tag;

  int number, count;  // no default value

  connected(int rank_number, int rank_count) : number(rank_number), count(rank_count) {}
  int rank() const { return number; }
  int size() const { return count; }
  void barrier() const {}
};

template <class Store>
void require_asks(Store const& store, world const& w) {
  int const before = *w.barriers;
  REQUIRE(store.rank() == 3);
  REQUIRE(store.num_workers() == 8);
  store.barrier();
  REQUIRE(*w.barriers == before + 1);
}

template <class Make>
void require_refuses(Make const& make, std::string const& part) {
  REQUIRE_THROWS_AS(make(), pp::invalid_argument);
  REQUIRE_THROWS_WITH(make(), Catch::Matchers::Contains(part));
}

}  // namespace

TEST_CASE("kv_store asks the communicator that it was given", "[communicator]") {
  world const w{.number = 3, .count = 8};
  auto const devices = pp::cpu_devices(2);
  require_asks(pp::kv_store{devices, update::sgd{}, w}, w);
  require_asks(pp::kv_store{devices, w, pp::synchronous{}}, w);
  pp::kv_store const last{devices, update::adam{}, pp::accumulate{2}, pp::compress::two_bit{0.1F}, w};
  require_asks(last, w);
  pp::kv_store moved{devices, update::sgd{}, w};
  require_asks(pp::kv_store(std::move(moved)), w);
}

TEST_CASE("stores of several element types and of several rules ask it too", "[communicator]") {
  world const w{.number = 3, .count = 8};
  auto const devices = pp::cpu_devices(2);
  require_asks(pp::make_kv_store<pp::type_list<float, double>>(devices, update::sgd{}, w), w);
  pp::rules const two{update::sgd{}, pp::where([](std::string_view key) { return key == "b"; }, update::momentum{})};
  require_asks(pp::kv_store{devices, two, w}, w);
}

TEST_CASE("a parameter_store asks the communicator of its store", "[communicator]") {
  world const w{.number = 3, .count = 8};
  auto const devices = pp::cpu_devices(2);
  pp::kv_store store{devices, update::sgd{}, w};
  require_asks(pp::parameter_store{store}, w);
  auto several = pp::make_kv_store<pp::type_list<float, double>>(devices, update::sgd{}, w);
  require_asks(pp::parameter_store{several}, w);
}

TEST_CASE("any_store asks its communicator, whatever rule and compression it is given", "[communicator]") {
  world const w{.number = 3, .count = 8};
  auto const devices = pp::cpu_devices(2);
  auto store = pp::create("device", devices, pp::compressors<pp::compress::two_bit>(), w);
  require_asks(store, w);
  store.init("w", std::vector<float>{1, 2, 3});
  store.set_optimizer(update::sgd{});
  require_asks(store, w);
  store.set_gradient_compression({{"type", "2bit"}, {"threshold", "0.5"}});
  require_asks(store, w);
  auto const moved = std::move(store);
  require_asks(moved, w);
  require_asks(pp::create("local", devices, w), w);
  require_asks(pp::any_store<pp::cpu_device<>, pp::compressors<>, float>("local", devices, w), w);
  // A user's store answers itself.
  require_asks(
      pp::any_store<pp::cpu_device<>, pp::compressors<>, float>("mine", pp::kv_store{devices, update::sgd{}, w}), w);
}

TEST_CASE("ranks that cannot exchange slices do not train alone unless they say so", "[communicator]") {
  auto const devices = pp::cpu_devices(1);
  std::string const text = "rank 3 of 8";
  require_refuses([&] { pp::kv_store{devices, update::sgd{}, connected(3, 8)}; }, text);
  require_refuses([&] { pp::create("local", devices, connected(3, 8)); }, text);
  pp::kv_store const store{devices, update::sgd{}, connected(0, 1)};
  REQUIRE(store.rank() == 0);
  REQUIRE(store.num_workers() == 1);
  store.barrier();
}

TEST_CASE("a rank is below the size", "[communicator]") {
  auto const devices = pp::cpu_devices(1);
  for (int const rank : {-1, 8, 9})
    require_refuses([&] { pp::kv_store{devices, update::sgd{}, world{.number = rank, .count = 8}}; },
                    "rank " + std::to_string(rank) + " of 8");
}

TEST_CASE("a registered store refuses a communicator that it would not ask", "[communicator]") {
  auto const devices = pp::cpu_devices(1);
  using created = pp::created_store_t<pp::cpu_device<>>;
  pp::register_store<created>("communicator.test",
                              [](std::string const& name, auto const& all) { return created(name, all); });
  REQUIRE(pp::create("communicator.test", devices).rank() == 0);
  require_refuses([&] { pp::create("communicator.test", devices, world{.number = 3, .count = 8}); },
                  "takes no communicator, one of 8 ranks came");
}
