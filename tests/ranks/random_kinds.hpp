/// @file
/// The stores of random programs, a program by its number, and what tells two runs of it apart.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "ranks/random_program.hpp"

namespace pushpull::test {

struct random_sgd {
  static constexpr bool rows = true, infinite = false;
  static auto rule(double rate) { return update::sgd{.learning_rate = rate}; }
  static auto make(auto const& devices, auto const& c) { return make_kv_store<float>(devices, rule(0.1), c); }
};
struct random_adam {
  static constexpr bool rows = true, infinite = false;
  static auto rule(double rate) { return update::adam{.learning_rate = rate}; }
  static auto make(auto const& devices, auto const& c) {
    return make_kv_store<float>(devices, rule(0.1), reduce::mean{}, c);
  }
};
struct random_lamb {
  static constexpr bool rows = false, infinite = false;
  static auto rule(double rate) { return update::clip_global_norm(10.0) | update::lamb{.learning_rate = rate}; }
  static auto make(auto const& devices, auto const& c) { return make_kv_store<float>(devices, rule(0.1), c); }
};
/// Skips steps, and adds up micro-batches.
struct random_scaled {
  static constexpr bool rows = false, infinite = true;
  static auto rule(double rate) {
    return update::dynamic_loss_scale{.initial = 8, .interval = 3} | update::momentum{.learning_rate = rate};
  }
  static auto make(auto const& devices, auto const& c) {
    return make_kv_store<float>(devices, rule(0.1), accumulate{2}, c);
  }
};

/// The program of a number.
template <class Communicator>
std::vector<noted> run_random_program(unsigned number, ranks_here const& here, Communicator const& c) {
  auto const run = [&]<class Kind>(Kind) { return random_program<Kind, Communicator>(number, here, c).run(); };
  switch (number % 4) {
    case 0: return run(random_sgd{});
    case 1: return run(random_adam{});
    case 2: return run(random_lamb{});
    default: return run(random_scaled{});
  }
}

/// The first difference, in words; empty if there is none.
inline std::string difference(std::vector<noted> const& expected, std::vector<noted> const& found) {
  auto const [e, f] = std::mismatch(expected.begin(), expected.end(), found.begin(), found.end());
  if (e == expected.end() && f == found.end()) return "";
  if (e == expected.end() || f == found.end()) return "one of them ends early";
  if (e->call != f->call || e->bits.size() != f->bits.size()) return e->call + " in one process, here " + f->call;
  auto const first = std::mismatch(e->bits.begin(), e->bits.end(), f->bits.begin()).first;
  return e->call + ": bits differ first in word " + std::to_string(first - e->bits.begin()) + " of " +
         std::to_string(e->bits.size());
}

}  // namespace pushpull::test
