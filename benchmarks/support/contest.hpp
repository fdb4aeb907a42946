/// @file
/// Contenders that take turns within one run, so that what else the machine does falls on all of them.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

namespace pushpull::bench {

/// The first contender is ours; the benchmark's time is its time, and each other becomes a counter that says how many
/// times as long it took.
class contest {
 public:
  using clock = std::chrono::steady_clock;

  /// @param calls  Calls per turn: many where one is too short for the clock.
  explicit contest(std::size_t calls) : calls_(std::max<std::size_t>(calls, 1)) {}

  /// @param scale  What the ratio is multiplied by: the share of our bytes to the contender's for a ratio of
  ///         bandwidths.
  void enter(std::string name, std::function<void()> run, double scale = 1) {
    contenders_.push_back({std::move(name), std::move(run), scale});
  }

  /// Seconds of the best turn of contender number i, per call.
  double best(std::size_t i) const { return contenders_[i].best; }

  /// Lets everybody run once per iteration, in another order each time, and reports the best turns.
  /// @param elements, bytes  Of one call of ours.
  void run(benchmark::State& state, double elements, double bytes) {
    for (auto& c : contenders_) c.run();  // pages, caches, threads
    std::vector<std::size_t> order(contenders_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::mt19937 random(1);
    for ([[maybe_unused]] auto _ : state) {
      std::shuffle(order.begin(), order.end(), random);
      for (std::size_t const i : order) turn(contenders_[i]);
      state.SetIterationTime(contenders_.front().last);
    }
    double const ours = contenders_.front().best;
    state.counters["bytes"] = bytes;
    state.counters["GB/s"] = bytes / ours * 1e-9;
    state.counters["ns/element"] = ours / elements * 1e9;
    for (std::size_t i = 1; i < contenders_.size(); ++i)
      state.counters["x " + contenders_[i].name] = contenders_[i].best / ours * contenders_[i].scale;
  }

 private:
  struct contender {
    std::string name;
    std::function<void()> run;
    double scale;
    double last = 0;
    double best = std::numeric_limits<double>::infinity();
  };

  void turn(contender& c) const {
    auto const start = clock::now();
    for (std::size_t i = 0; i < calls_; ++i) c.run();
    c.last = std::chrono::duration<double>(clock::now() - start).count() / static_cast<double>(calls_);
    c.best = std::min(c.best, c.last);
  }

  std::size_t calls_;
  std::vector<contender> contenders_;
};

}  // namespace pushpull::bench
