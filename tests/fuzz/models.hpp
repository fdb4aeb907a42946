/// @file
/// A random program of calls on a parameter_store, valid and hostile, beside a serial model.
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "fuzz/calls.hpp"
#include "fuzz/input.hpp"

namespace pushpull::test {

/// Parameters come, are frozen and trained.
class model_program {
  using vector = std::vector<float>;

 public:
  explicit model_program(fuzz_input& input)
      : input_(input), devices_(1 + input.below(3)), store_(cpu_devices(static_cast<int>(devices_)), halving{}) {}

  void run() {
    while (!input_.ended()) {
      std::string const name(1, static_cast<char>('a' + input_.below(4)));
      auto const found = model_.find(name);
      bool const known = found != model_.end();
      switch (input_.below(6)) {
        case 0: {
          vector value(input_.below(70), static_cast<float>(input_.below(9)));
          if (expect(!known, [&] { parameters_.add(name, std::as_const(value), {.requires_grad = true}); }))
            model_[name] = {value, vector(value.size()), true};
          break;
        }
        case 1:
        case 2:
          if (expect(known, [&] { input_.once_in(2) ? parameters_.freeze(name) : parameters_.unfreeze(name); }))
            found->second.trains = parameters_.requires_grad(name);
          break;
        case 3:
          expect(known && found->second.trains, [&] { parameters_.grad(name, std::size_t{0}); });
          expect(false, [&] { parameters_.value(name, devices_); });
          break;
        default: step();
      }
    }
    compare();
  }

 private:
  struct parameter {
    vector w, m;
    bool trains;
  };

  template <class F>
  bool expect(bool valid, F const& call) {
    try {
      call();
    } catch (error const&) {
      fuzz_check(!valid, "a valid call succeeds");
      compare();
      return false;
    }
    fuzz_check(valid, "an invalid call is refused");
    return true;
  }
  void step() {
    for (auto& [name, p] : model_) {
      if (!p.trains) continue;
      float sum = 0;
      for (std::size_t n = 0; n < devices_; ++n) {
        auto const g = static_cast<float>(input_.below(5));
        sum += g;
        std::fill_n(parameters_.grad(name, n).data(), p.w.size(), g);
      }
      for (std::size_t i = 0; i < p.w.size(); ++i) p.w[i] -= p.m[i] = 0.5F * p.m[i] + sum;
    }
    parameters_.update_all();
  }
  void compare() {
    for (auto const& [name, p] : model_)
      for (std::size_t n = 0; n < devices_; ++n) {
        auto const mirror = parameters_.value(name, n);
        fuzz_check(std::equal(p.w.begin(), p.w.end(), mirror.data(), mirror.data() + mirror.size()),
                   "every mirror is that of the model");
      }
  }

  fuzz_input& input_;
  std::size_t devices_;
  kv_store<float, cpu_device<>, halving> store_;
  parameter_store<decltype(store_)> parameters_{store_};
  std::map<std::string, parameter> model_;
};

}  // namespace pushpull::test
