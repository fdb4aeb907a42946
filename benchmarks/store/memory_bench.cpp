/// @file
/// What parameter_store holds for a model, against what it is made of: masters, states, mirrors and gradients.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <pushpull/pushpull.hpp>

#include "support/models.hpp"

namespace {

using namespace pushpull;

/// `x formula`: bytes on all devices divided by those of the elements, 4 K (weight, gradient) + 8 (Adam's states).
void memory(benchmark::State& state, std::vector<std::int64_t> const& sizes) {
  auto const devices = static_cast<std::size_t>(state.range(0));
  double held = 0, elements = 0;
  for ([[maybe_unused]] auto _ : state) {
    kv_store store{cpu_devices(static_cast<int>(devices)), update::adam{}};
    parameter_store parameters{store};
    for (std::size_t i = 0; i < sizes.size(); ++i)
      parameters.add(std::to_string(i), std::vector<float>(static_cast<std::size_t>(sizes[i]), 1.0F));
    parameters.update_all();
    store.wait();
    for (std::size_t n = 0; n < devices; ++n) held += static_cast<double>(store.bytes(n));
    for (std::int64_t const size : sizes) elements += static_cast<double>(size);
  }
  state.counters["GB"] = held / 1e9;
  state.counters["x formula"] = held / (elements * (8 * static_cast<double>(devices) + 8));
}

void entry(char const* name, std::vector<std::int64_t> const& sizes) {
  benchmark::RegisterBenchmark(name, [sizes](benchmark::State& state) { memory(state, sizes); })
      ->ArgName("K")
      ->Arg(1)
      ->Arg(4)
      ->Iterations(1)
      ->Unit(benchmark::kMillisecond);
}

bool const entered = [] {
  entry("memory/ResNet-50", bench::resnet50());
  entry("memory/BERT-base", bench::bert_base());
  entry("memory/5000 tensors of 2000 elements", std::vector<std::int64_t>(5000, 2000));
  entry("memory/5000 tensors of 10 elements", std::vector<std::int64_t>(5000, 10));
  return true;
}();

}  // namespace
