/// @file
/// Rules and transforms as users write them: with branches, for single floats only, with states of their own; in the
/// pipe of the library and against plain loops.
#include <cmath>
#include <cstddef>
#include <pushpull/pushpull.hpp>
#include <random>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/ranges.hpp"

namespace {

namespace update = pushpull::update;
using pushpull::pack;

/// Branches on the gradient, so it cannot run on registers.
struct sign_branch {
  double rate = 0.5;
  static constexpr auto state_names = pushpull::states("count");
  static constexpr bool one_element_at_a_time = true;

  template <class S, class V>
  PUSHPULL_HOST_DEVICE void operator()(S const&, V& w, V g, V& count) const noexcept {
    if (g > 0) {
      w -= rate;
      count += 1;
    } else if (g < 0) {
      w += rate;
    }
  }
};

/// The same, written for single floats: nothing else to call.
struct float_only {
  static constexpr auto state_names = pushpull::states();
  PUSHPULL_HOST_DEVICE void operator()(pushpull::step<float> const&, pack<float>& w, pack<float> g) const noexcept {
    w -= g > 0 ? 0.5F : (g < 0 ? -0.5F : 0.0F);
  }
};

/// A transform that remembers: g becomes a moving average of the gradients so far.
struct smooth {
  double keep = 0.75;
  static constexpr auto state_names = pushpull::states("average");
  template <class S, class V>
  PUSHPULL_HOST_DEVICE void operator()(S const&, V const&, V& g, V& average) const noexcept {
    average = keep * average + (1 - keep) * g;
    g = average;
  }
};

/// Tells by the weight which of its operators ran: that of `hoist` subtracts the rate, the other one 1.
struct hoisting {
  double learning_rate = 0.5;
  static constexpr auto state_names = pushpull::states();
  template <class A>
  struct numbers {
    A rate;
  };
  template <class A>
  PUSHPULL_HOST_DEVICE numbers<A> hoist(pushpull::step<A> const&) const noexcept {
    return {static_cast<A>(learning_rate)};
  }
  template <class A, class V>
  PUSHPULL_HOST_DEVICE void operator()(numbers<A> const& s, V& w, V const&) const noexcept {
    w -= s.rate;
  }
  template <class A, class V>
  PUSHPULL_HOST_DEVICE void operator()(pushpull::step<A> const&, V& w, V const&) const noexcept {
    w -= 1;
  }
};

/// Same, for elements that are told apart, one at a time.
struct hoisting_by_element : hoisting {
  static constexpr bool one_element_at_a_time = true;
  template <class A>
  struct of_elements {
    A rate;
    PUSHPULL_HOST_DEVICE numbers<A> at(std::int64_t) const noexcept { return {rate}; }
  };
  template <class A>
  PUSHPULL_HOST_DEVICE of_elements<A> hoist(pushpull::step<A> const&) const noexcept {
    return {static_cast<A>(learning_rate)};
  }
};

/// A transform of the same kind: its gradient is the rate, or 1.
struct hoisting_transform {
  double rate = 0.5;
  static constexpr auto state_names = pushpull::states();
  template <class A>
  struct numbers {
    A rate;
  };
  template <class A>
  PUSHPULL_HOST_DEVICE numbers<A> hoist(pushpull::step<A> const&) const noexcept {
    return {static_cast<A>(rate)};
  }
  template <class A, class V>
  PUSHPULL_HOST_DEVICE void operator()(numbers<A> const& s, V const&, V& g) const noexcept {
    g = s.rate;
  }
  template <class A, class V>
  PUSHPULL_HOST_DEVICE void operator()(pushpull::step<A> const&, V const&, V& g) const noexcept {
    g = 1;
  }
};

std::vector<std::vector<float>> random_gradients(std::size_t count, std::size_t size) {
  std::mt19937 random(7);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<std::vector<float>> result(count, std::vector<float>(size));
  for (auto& g : result)
    for (float& x : g) x = random() % 5 == 0 ? 0 : uniform(random);
  return result;
}

}  // namespace

TEST_CASE("a rule with a branch runs element by element, its states too", "[update]") {
  auto const gradients = random_gradients(3, 1003);
  pushpull::kv_store store{pushpull::cpu_devices(2), update::rescale(2) | sign_branch{}};
  std::vector<float> w(1003, 1.0F);
  store.init("w", w);
  std::vector<double> expected(1003, 1.0), count(1003, 0.0);
  for (auto const& g : gradients) {
    store.pushpull("w", g, w).wait();
    for (std::size_t i = 0; i < w.size(); ++i) {
      expected[i] -= g[i] > 0 ? 0.5 : (g[i] < 0 ? -0.5 : 0);
      count[i] += g[i] > 0;
    }
  }
  auto const counted = store.state("w", "count");
  for (std::size_t i = 0; i < w.size(); ++i) {
    REQUIRE(w[i] == expected[i]);
    REQUIRE(counted[i] == count[i]);
  }
}

TEST_CASE("a rule for single floats needs no template", "[update]") {
  auto const gradients = random_gradients(2, 129);
  pushpull::kv_store store{pushpull::cpu_devices(1), float_only{}};
  std::vector<float> w(129, 0.0F);
  store.init("w", w);
  for (auto const& g : gradients) store.pushpull("w", g, w).wait();
  for (std::size_t i = 0; i < w.size(); ++i) {
    float expected = 0;
    for (auto const& g : gradients) expected -= g[i] > 0 ? 0.5F : (g[i] < 0 ? -0.5F : 0.0F);
    REQUIRE(w[i] == expected);
  }
}

TEST_CASE("the pass hoists, alone, in pipes and under schedules; wrappers call the plain operator", "[update]") {
  auto const change = [](auto const& rule) {
    pushpull::kv_store store{pushpull::cpu_devices(2), rule};
    std::vector<float> const g(101, 1.0F);
    std::vector<float> w(101, 0.0F);
    store.init("w", w);
    store.pushpull("w", g, w).wait();
    for (float const x : w) REQUIRE(x == w[0]);
    return w[0];
  };
  REQUIRE(change(hoisting{}) == -0.5F);
  REQUIRE(change(update::rescale(2) | hoisting{.learning_rate = 0.25}) == -0.25F);
  auto const eighth = [](std::int64_t) { return 0.125; };
  REQUIRE(change(hoisting{} | update::learning_rate(eighth)) == -0.125F);
  REQUIRE(change(update::rescale(2) | hoisting{} | update::learning_rate(eighth)) == -0.125F);
  REQUIRE(change(update::decoupled_decay{hoisting{}, 0.5}) == -1);
  REQUIRE(change(hoisting_by_element{}) == -0.5F);
  REQUIRE(change(hoisting_transform{} | update::sgd{1}) == -0.5F);
}

TEST_CASE("adam and adamw have the same bits hoisted and within a wrapper", "[update]") {
  auto const require_same = [](auto const& rule, auto const& wrapped) {
    auto const gradients = random_gradients(5, 1003);
    auto const weights = [&](auto const& r) {
      pushpull::kv_store store{pushpull::cpu_devices(2), r};
      std::vector<float> w(1003, 1.0F);
      store.init("w", w);
      for (auto const& g : gradients) store.pushpull("w", g, w).wait();
      return w;
    };
    REQUIRE(weights(rule) == weights(wrapped));
  };
  require_same(update::adam{}, update::clip_weights{update::adam{}, 1e9});
  require_same(update::adamw{}, update::clip_weights{update::adamw{}, 1e9});
}

TEST_CASE("a transform with a state stands anywhere in a pipe", "[update]") {
  auto const gradients = random_gradients(5, 777);
  pushpull::kv_store store{pushpull::cpu_devices(3), smooth{} | update::clip_value(0.2) | smooth{.keep = 0.5} |
                                                         update::momentum{.learning_rate = 1}};
  std::vector<float> w(777, 0.0F);
  store.init("w", w);
  std::vector<double> a(777), b(777), m(777), expected(777);
  for (auto const& g : gradients) {
    store.pushpull("w", g, w).wait();
    for (std::size_t i = 0; i < w.size(); ++i) {
      a[i] = 0.75 * a[i] + 0.25 * double{g[i]};
      b[i] = 0.5 * b[i] + 0.5 * std::min(std::max(a[i], -0.2), 0.2);
      m[i] = 0.9 * m[i] + b[i];
      expected[i] -= m[i];
    }
  }
  for (std::size_t i = 0; i < w.size(); ++i) REQUIRE(std::abs(double{w[i]} - expected[i]) < 1e-6);
  REQUIRE(store.state_names() == std::vector<std::string>{"average", "average.2", "momentum_buffer"});
  REQUIRE(store.state("w", "average.2")[5] == Approx(b[5]).margin(1e-6));
}

TEST_CASE("lists may be any ranges: views of the standard library and of range-v3", "[kv_store]") {
  pushpull::kv_store<float, pushpull::cpu_device<>, update::sgd, pushpull::integer_keys> store{pushpull::cpu_devices(2),
                                                                                               update::sgd{1.0}};
  std::vector<std::vector<float>> tensors(4, std::vector<float>(65, 1.0F));
  store.init(std::views::iota(10, 14), tensors);
  store.push(std::views::iota(10, 14) | std::views::reverse, tensors);
  std::vector<int> const keys{10, 12};
  std::vector<std::vector<float>> out(2, std::vector<float>(65, 7.0F));
  store.pull(keys | ranges::views::transform([](int key) { return key + 1; }), out).wait();
  REQUIRE(out == std::vector(2, std::vector<float>(65, 0.0F)));
}
