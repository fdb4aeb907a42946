/// @file
/// Claims about rules that keep matrices: the same bits on any number of devices and ranks, through a file, and after errors.
#pragma once

#include <pushpull/checkpoint/optimizer_states.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/comm/threads.hpp>
#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "support/expect.hpp"
#include "support/temporary_folder.hpp"

namespace pushpull::test {

/// The weights, from 0, after each of the gradients.
template <class Rule>
std::vector<double> weights_after(Rule const& rule, shape const& shape, std::vector<std::vector<double>> gradients) {
  kv_store<double, cpu_device<>, Rule, synchronous> store{cpu_devices(1), rule};
  std::vector<double> w(shape.size());
  store.init("w", tensor_view(w.data(), shape));
  for (auto& g : gradients) store.push("w", tensor_view(g.data(), shape)).wait();
  store.pull("w", tensor_view(w.data(), shape)).wait();
  return w;
}

/// A model of matrices, vectors and tensors, tall, wide, of one row or column, of primes and of no element.
template <class Rule, class D = cpu_device<>>
class matrix_model {
 public:
  using tensors = std::vector<std::vector<float>>;
  using store_type = kv_store<float, D, Rule, synchronous>;

  explicit matrix_model(Rule const& rule, std::vector<D> (*devices)(int) = &cpu_devices<tbb_system>)
      : rule_(rule), devices_(devices) {}

  store_type on(int devices) const {
    store_type store{devices_(devices), rule_};
    begin(store);
    return store;
  }
  template <class Store>
  static void begin(Store& store) {
    auto values = random(0);
    store.init(names(), views(values));
  }
  /// Steps number `first` to `last`.
  template <class Store>
  static void train(Store& store, unsigned first, unsigned last) {
    for (unsigned t = first; t <= last; ++t) {
      auto gradients = random(t);
      store.push(names(), views(gradients)).wait();
    }
  }
  /// Weights, states and counts of steps.
  template <class Store>
  static tensors everything(Store& store) {
    auto result = random(0);
    store.pull(names(), views(result)).wait();
    for (auto const& name : names()) {
      for (auto const& state : store.state_names()) result.push_back(store.state(name, state));
      result.push_back({static_cast<float>(store.steps(name))});
    }
    for (auto const& tensor : result)
      for (float const x : tensor)
        expect(std::isfinite(x));  // ranks call: Catch2 takes no assertions of several threads
    return result;
  }

  void check_devices() const {
    auto one = on(1);
    train(one, 1, 8);
    auto const expected = everything(one);
    for (int const devices : {2, 4, 7}) {
      auto store = on(devices);
      train(store, 1, 8);
      REQUIRE(everything(store) == expected);
    }
  }

  /// Saves amid an interval.
  void check_resuming() const {
    temporary_folder const folder;
    auto through = on(1);
    train(through, 1, 8);
    for (unsigned const saved : {1U, 4U, 5U}) {
      auto first = on(4), second = on(2);
      train(first, 1, saved);
      checkpoint::save_optimizer_states(first, folder.file("states"));
      auto weights = random(0);
      first.pull(names(), views(weights)).wait();
      second.assign(names(), views(weights));
      checkpoint::load_optimizer_states(second, folder.file("states"));
      train(second, saved + 1, 8);
      REQUIRE(everything(second) == everything(through));
    }
  }

  void check_ranks() const {
    auto one = on(1);
    train(one, 1, 8);
    auto const expected = everything(one);
    comm::run_ranks(3, [&](comm::threads const& c) {
      auto store = make_kv_store<float>(cpu_devices(1), rule_, c);
      begin(store);
      for (unsigned t = 1; t <= 8; ++t) {
        auto gradients = random(t);
        if (c.rank() > 0)
          for (auto& g : gradients) g.assign(g.size(), 0.0F);
        store.push(names(), views(gradients)).wait();
      }
      expect(everything(store) == expected);
    });
  }

  /// Ranks of which one cannot make a step all refuse the step. So does one process.
  /// @param state  A NaN in this state reaches the sums, though no `transform` fails.
  void check_errors_of_ranks(std::string const& state) const {
    auto one = on(1);
    train(one, 1, 3);
    auto alone = random(4);
    auto const push_alone = [&] { one.push("square", tensor_view(alone[1].data(), shapes()[1])).wait(); };
    auto const kept_by_one = one.state("square", state);
    auto broken_one = kept_by_one;
    broken_one.back() = std::numeric_limits<float>::quiet_NaN();
    one.set_state("square", state, broken_one);
    REQUIRE_THROWS_AS(push_alone(), update_error);
    REQUIRE(one.steps("square") == 3);
    one.set_state("square", state, kept_by_one);
    push_alone();
    auto const expected = everything(one);
    comm::run_ranks(3, [&](comm::threads const& c) {
      auto store = make_kv_store<float>(cpu_devices(1), rule_, c);
      begin(store);
      for (unsigned t = 1; t <= 3; ++t) {
        auto gradients = random(t);
        if (c.rank() > 0)
          for (auto& g : gradients) g.assign(g.size(), 0.0F);
        auto wrong = gradients;
        wrong[t].front() = std::numeric_limits<float>::infinity();
        expect_throws<update_error>([&] { store.push(names(), views(wrong)).wait(); });
        store.push(names(), views(gradients)).wait();
      }
      auto gradient = random(4)[1];
      if (c.rank() > 0) gradient.assign(gradient.size(), 0.0F);
      auto const push_one = [&] { store.push("square", tensor_view(gradient.data(), shapes()[1])).wait(); };
      auto const kept = store.state("square", state);
      auto broken = kept;
      broken.back() = std::numeric_limits<float>::quiet_NaN();
      store.set_state("square", state, broken);
      expect_throws<update_error>(push_one);  // also on the owner, which has all keys of the step
      store.set_state("square", state, kept);
      push_one();
      expect(everything(store) == expected);
    });
  }

  /// Where the host does not wait, a step with a gradient that is not finite leaves the key's weights and states alone, and
  /// counts. The steps of other keys are made.
  void check_left_alone() const {
    for (int const devices : {1, 3}) {
      auto store = on(devices), undisturbed = on(1);
      train(store, 1, 5);
      train(undisturbed, 1, 5);
      auto before = everything(store);
      REQUIRE(before == everything(undisturbed));
      for (std::string const& name : {std::string("tall"), std::string("vector")}) {
        auto gradients = random(6);
        for (std::size_t k = 0; k < gradients.size(); ++k)
          if (names()[k] == name) gradients[k].back() = std::numeric_limits<float>::quiet_NaN();
        check_step(store, undisturbed, gradients, name);
      }
      auto gradients = random(6);
      for (float& x : gradients[0]) x *= 1e30F;
      check_step(store, undisturbed, gradients, "tall");
    }
  }
  /// A step whose decompositions all fail leaves matrices alone, and counts. Steps go on from what was.
  /// @param fail  fail(n): the next n decompositions fail. @param made  A state that a later decomposition makes.
  template <class F>
  void check_failed_decompositions(unsigned step, F const& fail, std::string const& made) const {
    auto store = on(1);
    if (step > 1) train(store, 1, step - 1);
    auto const before = everything(store);
    fail(1000);
    train(store, step, step);
    fail(0);
    auto const after = everything(store);
    std::size_t const states = store.state_names().size();
    for (std::size_t k = 0; k < names().size(); ++k) {
      if (names()[k] == "empty") continue;
      bool const is_vector = names()[k] == "vector";
      std::size_t const first = names().size() + k * (states + 1);
      INFO(names()[k]);
      if (step > 1) REQUIRE((after[k] == before[k]) == !is_vector);
      for (std::size_t i = first; !is_vector && i < first + states; ++i) REQUIRE(after[i] == before[i]);
      REQUIRE(after[first + states] == std::vector<float>{static_cast<float>(step)});
    }
    train(store, step + 1, step + 9);
    for (float const x : store.state("square", made)) REQUIRE(std::isfinite(x));
    REQUIRE(store.state("square", made) != std::vector<float>(25));
  }
  /// The step of `of` leaves the key alone; the other store makes that of all other keys.
  template <class Store>
  static void check_step(Store& store, Store& undisturbed, tensors gradients, std::string const& of) {
    auto expected = everything(store);
    store.push(names(), views(gradients)).wait();
    std::vector<std::string> others;
    std::vector<tensor_view<float>> of_others;
    auto const all = views(gradients);
    for (std::size_t k = 0; k < all.size(); ++k)
      if (names()[k] != of) {
        others.push_back(names()[k]);
        of_others.push_back(all[k]);
      }
    undisturbed.push(others, of_others).wait();
    undisturbed.set_steps(of, undisturbed.steps(of) + 1);
    INFO(of);
    REQUIRE(everything(store) == everything(undisturbed));
    REQUIRE(everything(store) != expected);
  }

  /// A step with a gradient or a state that is not finite changes nothing, and the message names the key.
  /// @param reason  What the rule says of "left" with a NaN in step 6.
  void check_errors(std::string const& reason) const {
    for (int const devices : {1, 3}) {
      auto store = on(devices);
      train(store, 1, 5);
      auto const before = everything(store);
      for (std::string const& name : {std::string("tall"), std::string("vector")}) {
        auto gradients = random(6);
        for (std::size_t k = 0; k < gradients.size(); ++k)
          if (names()[k] == name) gradients[k].back() = std::numeric_limits<float>::quiet_NaN();
        INFO(name);
        REQUIRE_THROWS_AS(store.push(names(), views(gradients)).wait(), update_error);
        REQUIRE(everything(store) == before);
      }
      auto gradients = random(6);
      for (float& x : gradients[0]) x *= 1e30F;
      REQUIRE(error_of(store, gradients).starts_with("key \"tall\": the squares of its gradients are too large"));
      REQUIRE(everything(store) == before);

      auto const kept = store.state("square", "left");
      auto broken = kept;
      broken[1] = broken[5] =
          std::numeric_limits<float>::quiet_NaN();  // beside the diagonal; the step decomposes the statistics
      store.set_state("square", "left", broken);
      REQUIRE(error_of(store, random(6)).starts_with("key \"square\": " + reason));
      store.set_state("square", "left", kept);
      REQUIRE(everything(store) == before);
      train(store, 6, 8);
      auto undisturbed = on(1);
      train(undisturbed, 1, 8);
      REQUIRE(everything(store) == everything(undisturbed));
    }
  }

 private:
  static std::vector<std::string> const& names() {
    static std::vector<std::string> const all{"tall", "square", "vector", "kernels", "empty", "row", "column", "wide"};
    return all;
  }
  static std::vector<shape> const& shapes() {
    static std::vector<shape> const all{{61, 17}, {5, 5}, {19}, {4, 3, 2, 2}, {0, 3}, {1, 7}, {7, 1}, {3, 101}};
    return all;
  }
  static std::vector<tensor_view<float>> views(tensors& of) {
    std::vector<tensor_view<float>> result;
    for (std::size_t k = 0; k < of.size(); ++k) result.emplace_back(of[k].data(), shapes()[k]);
    return result;
  }
  static tensors random(unsigned seed) {
    std::mt19937 engine(seed);
    std::uniform_real_distribution<float> uniform(-1, 1);
    tensors result;
    for (shape const& s : shapes()) {
      result.emplace_back(s.size());
      for (float& x : result.back()) x = uniform(engine);
    }
    return result;
  }
  /// The message of the update_error of a step.
  static std::string error_of(store_type& store, tensors gradients) {
    try {
      store.push(names(), views(gradients)).wait();
    } catch (update_error const& e) {
      return e.what();
    }
    return "none";
  }

  Rule rule_;
  std::vector<D> (*devices_)(int);
};

}  // namespace pushpull::test
