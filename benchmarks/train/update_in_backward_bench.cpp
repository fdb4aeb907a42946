/// @file
/// The update of each layer right after its backward pass, against one step after the whole pass: on the same processors.
#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <oneapi/tbb/blocked_range.h>
#include <oneapi/tbb/parallel_for.h>
#include <pushpull/pushpull.hpp>

#include "support/contest.hpp"

namespace {

using namespace pushpull;

/// A backward pass that costs little more than the gradient that it writes, on all processors.
void backward(float* gradient, std::size_t size) {
  static std::vector<float> const piece(std::size_t{1} << 12, 1e-3F);
  tbb::parallel_for(tbb::blocked_range<std::size_t>(0, size, std::size_t{1} << 15), [=](auto const& range) {
    for (std::size_t i = range.begin(); i < range.end(); i += piece.size())
      std::copy_n(piece.data(), std::min(piece.size(), range.end() - i), gradient + i);
  });
}

/// range(0) layers of range(1) KiB; range(2): all gradients are written to one memory, which stays in the cache.
/// @tparam Rule  Keeps 0, 1 or 2 states per element.
template <class Rule>
void update_in_backward(benchmark::State& state) {
  auto const layers = static_cast<std::size_t>(state.range(0));
  auto const elements = static_cast<std::size_t>(state.range(1)) * 256;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < layers; ++i) names.push_back("layer" + std::to_string(i));
  bool const in_one_memory = state.range(2) != 0;
  std::vector<float> gradient(in_one_memory ? elements : 0);
  auto const add = [&](auto& parameters, bool keeps) {
    for (auto const& name : names) parameters.add(name, std::vector<float>(elements, 1.0F), {.keeps_gradient = keeps});
    parameters.materialize();
  };
  kv_store in_backward{cpu_devices(1), Rule{.learning_rate = 1e-3}}, after{cpu_devices(1), Rule{.learning_rate = 1e-3}};
  parameter_store first{in_backward}, second{after};
  add(first, !in_one_memory);
  add(second, true);
  first.update_in_backward();
  first.set_bucket_bytes(elements * sizeof(float));

  bench::contest contest(1);
  if (in_one_memory) {
    contest.enter("in backward", [&] {
      for (std::size_t i = layers; i-- > 0;) {
        backward(gradient.data(), elements);
        first.update(names[i], gradient);
      }
    });
  } else {
    contest.enter("in backward", [&] {
      for (std::size_t i = layers; i-- > 0;) {
        backward(first.grad(names[i], 0).data(), elements);
        first.ready(names[i]);
      }
    });
  }
  contest.enter("after backward", [&] {
    for (std::size_t i = layers; i-- > 0;) backward(second.grad(names[i], 0).data(), elements);
    second.update_all();
  });
  contest.enter("backward alone", [&] {
    for (std::size_t i = layers; i-- > 0;) backward(second.grad(names[i], 0).data(), elements);
  });
  contest.enter("update alone", [&] { second.update_all(); });
  auto const total = static_cast<double>(layers * elements);
  contest.run(state, total, total * sizeof(float));
}

BENCHMARK_TEMPLATE(update_in_backward, update::sgd)
    ->ArgNames({"layers", "KiB", "one memory"})
    ->ArgsProduct({{100}, {1024}, {0, 1}})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond)
    ->Iterations(60);
BENCHMARK_TEMPLATE(update_in_backward, update::momentum)
    ->ArgNames({"layers", "KiB", "one memory"})
    ->ArgsProduct({{100}, {1024}, {0, 1}})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond)
    ->Iterations(60);
BENCHMARK_TEMPLATE(update_in_backward, update::adam)
    ->ArgNames({"layers", "KiB", "one memory"})
    ->ArgsProduct({{100}, {1024}, {0, 1}})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond)
    ->Iterations(60);

}  // namespace
