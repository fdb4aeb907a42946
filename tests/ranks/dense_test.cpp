/// @file
/// Dense gradients of several ranks: the weights are those of one process, bit for bit.
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/comm/threads.hpp>
#include <pushpull/pushpull.hpp>
#include <type_traits>
#include <vector>

#include "ranks/same_bits.hpp"
#include "support/catch.hpp"
#include "support/counting_communicator.hpp"
#include "support/expect.hpp"

namespace {

namespace pp = pushpull;
namespace comm = pushpull::comm;
namespace update = pushpull::update;
namespace test = pushpull::test;

constexpr auto push = [](auto& store, std::size_t, auto const& keys, auto const& gradients, auto&) {
  store.push(keys, gradients).wait();
};
constexpr auto push_one_by_one = [](auto& store, std::size_t, auto const& keys, auto const& gradients, auto&) {
  for (std::size_t i = 0; i < keys.size(); ++i) store.push(keys[i], gradients[i]);
};
/// From memory of any alignment, and with a key that stands twice in the list.
constexpr auto push_twice = [](auto& store, std::size_t, auto const& keys, auto const& gradients, auto&) {
  auto names = keys;
  auto lists = gradients;
  names.insert(names.begin(), keys[4]);
  lists.insert(lists.begin(), gradients[4]);
  for (auto& gradient : lists.front())
    for (float& x : gradient) x *= 3;
  std::vector<std::vector<pp::tensor_view<float const>>> views;
  for (auto& list : lists) {
    views.emplace_back();
    for (auto& gradient : list) {
      std::size_t const size = gradient.size();
      gradient.insert(gradient.begin(), 1 + views.size() % 4, 0.0F);
      views.back().emplace_back(gradient.data() + (gradient.size() - size), pp::shape{static_cast<std::int64_t>(size)});
    }
  }
  store.push(names, views).wait();
};

}  // namespace

TEST_CASE("pushes over ranks give the bits of one process: adam", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::adam{.learning_rate = 0.1}, c);
  };
  for (int const ranks : {1, 2, 3, 7}) {
    test::require_same_bits<float, comm::single>(ranks, 1, 20, make, push);
    test::require_same_bits<float, comm::single>(ranks, 2, 5, make, push_one_by_one);
    test::require_same_bits<float, comm::single>(ranks, 2, 5, make, test::push_and_pull);
    test::require_same_bits<float, comm::single>(ranks, 2, 3, make, test::push_and_pull, {.mirrored = false});
    test::require_same_bits<float, comm::single>(ranks, 2, 2, make, push_twice);
  }
}

TEST_CASE("gradients of push travel by messages between nodes only", "[ranks]") {
  for (int const on_a_node : {1, 2, 4}) {
    comm::threads_options const options{.deadline = std::chrono::seconds(20), .ranks_per_node = on_a_node};
    comm::run_ranks(4, options, [&](comm::threads const& of_rank) {
      test::counting_communicator const c(of_rank);
      pp::kv_store store{pp::cpu_devices(1), update::sgd{.learning_rate = 1}, c};
      std::size_t const slice = 2048;
      store.init("a", std::vector<float>(4 * slice, 0));
      auto const gradient = std::vector<float>(4 * slice, 1 + static_cast<float>(c.rank()));
      std::vector<std::vector<float>> const gradients(2, gradient);
      std::vector<float> weights(4 * slice);
      for (int step = 1; step < 4; ++step) {
        std::size_t const before = c.bytes();
        store.pushpull("a", gradients, weights).wait();
        test::expect(weights == std::vector<float>(4 * slice, -20.0F * static_cast<float>(step)));
        std::size_t const to_owners = 2 * slice * sizeof(float) * static_cast<std::size_t>(4 - on_a_node);
        std::size_t const to_partner = on_a_node == 2 ? slice * sizeof(float) : 0;  // the new slice
        test::expect(c.bytes() == before + to_owners + to_partner);
      }
    });
  }
}

TEST_CASE("pushes over ranks give the bits of one process: bfloat16 with masters of float", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<pp::bfloat16>(devices, update::momentum{.learning_rate = 0.1},
                                           pp::element::master<float>{}, c);
  };
  for (int const ranks : {2, 4})
    for (bool const mirrored : {true, false})
      test::require_same_bits<pp::bfloat16, comm::single>(ranks, 1, 20, make, test::push_and_pull,
                                                          {.mirrored = mirrored});
}

TEST_CASE("pushes over ranks give the bits of one process: keys that are not cut", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::sgd{.learning_rate = 0.1}, pp::placement::owners{}, c);
  };
  for (int const ranks : {2, 4}) test::require_same_bits<float, comm::single>(ranks, 2, 5, make, test::push_and_pull);
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
      test::require_same_bits<float, comm::single>(ranks, bound == 1031 ? 2 : 1, 3, make, test::push_and_pull);
    }
}

TEST_CASE("without a rule a push over ranks stores their sum, or their mean", "[ranks]") {
  test::require_same_bits<double, comm::single>(
      3, 1, 3, [](auto const& devices, auto const& c) { return pp::make_kv_store<double>(devices, c); }, push);
  test::require_same_bits<float, comm::single>(
      2, 2, 3,
      [](auto const& devices, auto const& c) {
        return pp::make_kv_store<float>(devices, update::sgd{}, pp::reduce::mean{}, pp::synchronous{}, c);
      },
      test::push_and_pull);
}
