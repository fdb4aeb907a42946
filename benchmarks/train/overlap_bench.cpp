/// @file
/// Steps during the backward pass of an executor with known layer times, against the step after it and the ideal schedule.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <string>
#include <thread>
#include <vector>

#include <benchmark/benchmark.h>
#include <pushpull/pushpull.hpp>

#include "support/contest.hpp"

namespace {

using namespace pushpull;
using clock_type = std::chrono::steady_clock;
using seconds = std::chrono::duration<double>;

/// An accelerator that the processors wait for: each layer takes a known time, beside which the store may work.
class executor {
 public:
  executor(double forward, double backward) : forward_(forward), backward_(backward) {}

  /// The layer begins now, or when the one before it ends.
  void forward() { take(forward_); }
  void backward() { take(backward_); }
  void begin() { end_ = clock_type::now(); }

 private:
  void take(double time) {
    auto const now = clock_type::now();
    if (now - end_ > std::chrono::milliseconds(1)) end_ = now;  // it had to wait; else this thread woke late
    end_ += std::chrono::duration_cast<clock_type::duration>(seconds(time));
    std::this_thread::sleep_until(end_);
  }

  double forward_, backward_;
  clock_type::time_point end_;
};

/// The time of a backward and a forward pass if each layer's update takes `update` on one further processor, and runs as soon as
/// its gradient is complete: those of the first layers first.
double ideal(std::size_t layers, double forward, double backward, double update) {
  std::vector<double> done(layers);
  double free = 0;
  for (std::size_t i = layers; i-- > 0;) {
    double const ready = static_cast<double>(layers - i) * backward;
    done[i] = free = std::max(free, ready) + update;
  }
  double now = static_cast<double>(layers) * backward;
  for (std::size_t i = 0; i < layers; ++i) now = std::max(now, done[i]) + forward;
  return now;
}

/// range(0) layers of range(1) KiB of gradients; layers take range(2) microseconds backward, half of that forward.
void overlap(benchmark::State& state) {
  auto const layers = static_cast<std::size_t>(state.range(0));
  auto const elements = static_cast<std::size_t>(state.range(1)) * 256;
  double const backward = static_cast<double>(state.range(2)) * 1e-6, forward = backward / 2;
  kv_store store{cpu_devices(1), update::adam{}};
  parameter_store parameters{store};
  std::vector<std::string> names;
  for (std::size_t i = 0; i < layers; ++i) {
    names.push_back("layer" + std::to_string(i));
    parameters.add(names.back(), std::vector<float>(elements, 1.0F));
  }
  for (auto const& name : names) std::fill_n(parameters.grad(name, 0).data(), elements, 0.01F);
  parameters.set_bucket_bytes(elements * sizeof(float));

  executor device(forward, backward);
  bench::contest contest(1);
  contest.enter("overlap", [&] {
    device.begin();
    for (std::size_t i = layers; i-- > 0;) {
      device.backward();
      parameters.ready(names[i]);
    }
    for (auto const& name : names) {
      parameters.wait(name);
      device.forward();
    }
  });
  contest.enter("after", [&] {
    device.begin();
    for (std::size_t i = layers; i-- > 0;) device.backward();
    parameters.update_all();
    for (std::size_t i = 0; i < layers; ++i) device.forward();
  });
  contest.enter("update", [&] { parameters.update_all(); });
  contest.enter("passes", [&] {
    device.begin();
    for (std::size_t i = layers; i-- > 0;) device.backward();
    for (std::size_t i = 0; i < layers; ++i) device.forward();
  });
  auto const total = static_cast<double>(layers * elements);
  contest.run(state, total, 28 * total);
  double const update = contest.best(2) / static_cast<double>(layers);
  double const best =
      contest.best(3) - static_cast<double>(layers) * (forward + backward) + ideal(layers, forward, backward, update);
  state.counters["update ms"] = contest.best(2) * 1e3;
  state.counters["ideal ms"] = best * 1e3;
  state.counters["hidden"] = (contest.best(1) - contest.best(0)) / (contest.best(1) - best);
}

BENCHMARK(overlap)
    ->ArgNames({"layers", "KiB", "us"})
    ->Args({64, 1024, 1000})
    ->Args({64, 1024, 500})
    ->Args({32, 4096, 2000})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond)
    ->Iterations(25);

}  // namespace
