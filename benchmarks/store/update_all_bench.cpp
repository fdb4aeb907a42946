/// @file
/// A whole model through parameter_store against the pass over one array of as many elements.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <pushpull/pushpull.hpp>

#include "pass/bare_pass.hpp"
#include "support/contest.hpp"
#include "support/operands.hpp"

namespace {

using namespace pushpull;

/// range(0) tensors of range(1) elements each, on one device.
void update_all(benchmark::State& state) {
  auto const tensors = static_cast<std::size_t>(state.range(0));
  auto const elements = static_cast<std::size_t>(state.range(1));
  auto const devices = cpu_devices(1);
  kv_store store{devices, update::adam{}};
  parameter_store parameters{store};
  for (std::size_t i = 0; i < tensors; ++i)
    parameters.add("layer" + std::to_string(i), std::vector<float>(elements, 1.0F));
  parameters.materialize();
  for (std::size_t i = 0; i < tensors; ++i) {
    auto const g = parameters.grad("layer" + std::to_string(i), 0);
    for (std::size_t e = 0; e < elements; ++e) g.data()[e] = 0.01F;
  }

  auto const total = static_cast<std::int64_t>(tensors * elements);
  bench::operands<float> o(devices.front(), (total + pass::padding - 1) / pass::padding * pass::padding, 1, 0, 2);
  bench::bare_pass<float, update::adam> one_array(devices.front(), o, {});
  bench::contest contest((std::size_t{1} << 20) / static_cast<std::size_t>(total));
  contest.enter("ours", [&] { parameters.update_all(); });
  contest.enter("one array", [&] { one_array(); });
  contest.run(state, static_cast<double>(total), o.bytes_moved());
}

BENCHMARK(update_all)
    ->ArgNames({"tensors", "elements"})
    ->Args({1, 1 << 25})
    ->Args({200, 1 << 16})
    ->Args({200, 1'000})
    ->Args({1'000, 1'000})
    ->Args({5'000, 2'000})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond)
    ->Iterations(25);

}  // namespace
