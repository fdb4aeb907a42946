/// @file
/// Training that is interrupted, saved and resumed elsewhere, against training that went through.
#pragma once

#include <pushpull/checkpoint/optimizer_states.hpp>

#include <cstddef>
#include <random>
#include <string>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace pushpull::test {

/// A model of four keys, one of them empty and none a whole number of registers, and its random gradients.
class resumable {
 public:
  using tensors = std::vector<std::vector<float>>;

  /// 20 steps of `rule` on one device, and on each of several numbers of devices 10 steps, whose weights, states and counts
  /// go through a file into a store on another number, which makes the other 10: bit for bit the same. And a step
  /// with the largest t.
  template <class Rule>
  static void check(std::string const& name, Rule const& rule) {
    INFO(name);
    temporary_folder const folder;
    auto const path = folder.file("states");
    kv_store through{cpu_devices(1), rule, synchronous{}};
    through.init(keys(), random(0));
    train(through, 1, 20);
    auto const expected = everything(through);
    for (auto const& [before, after] : {std::pair{1, 4}, {2, 1}, {4, 7}, {7, 2}}) {
      kv_store first{cpu_devices(before), rule, synchronous{}};
      first.init(keys(), random(0));
      train(first, 1, 10);
      auto weights = random(0);
      first.pull(keys(), weights);
      checkpoint::save_optimizer_states(first, path);
      kv_store second{cpu_devices(after), rule, synchronous{}};
      second.init(keys(), weights);
      checkpoint::load_optimizer_states(second, path);
      train(second, 11, 20);
      INFO("from " << before << " devices to " << after);
      CHECK(everything(second) == expected);
    }
    for (auto const& key : keys()) through.set_steps(key, max_steps);  // the largest t that a file may name
    train(through, 21, 21);
    everything(through);
  }

 private:
  static std::vector<std::string> const& keys() {
    static std::vector<std::string> const names{"a", "empty", "b", "c"};
    return names;
  }

  /// In [-1, 1]; gradients of some steps are small.
  static tensors random(unsigned seed) {
    std::mt19937 engine(seed);
    std::uniform_real_distribution<float> uniform(-1, 1);
    tensors result;
    for (std::size_t const size : {3U, 0U, 4127U, 131U}) {
      result.emplace_back(size);
      for (float& x : result.back()) x = uniform(engine) * (seed % 4 == 3 ? 0.125F : 1.0F);
    }
    return result;
  }

  template <class Store>
  static void train(Store& store, unsigned first, unsigned last) {
    for (unsigned t = first; t <= last; ++t) store.push(keys(), random(t));
  }

  template <class Store>
  static tensors everything(Store& store) {
    auto result = random(0);
    store.pull(keys(), result);
    for (auto const& key : keys())
      for (auto const& name : Store::state_names()) result.push_back(store.state(key, name));
    for (auto const& tensor : result)
      for (float const x : tensor)
        if (!(x - x == 0)) FAIL("not a finite number");
    return result;
  }
};

}  // namespace pushpull::test
