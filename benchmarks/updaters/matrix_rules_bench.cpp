/// @file
/// Steps of rules that decompose matrices, against one product of matrices of the same size by the same BLAS.
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include <benchmark/benchmark.h>
#include <pushpull/pushpull.hpp>
#include <pushpull/update/shampoo.hpp>
#include <pushpull/update/soap.hpp>

namespace {

using namespace pushpull;

std::vector<float> random_matrix(std::int64_t side) {
  std::mt19937 engine(1);
  std::normal_distribution<float> normal;
  std::vector<float> result(static_cast<std::size_t>(side * side));
  for (float& x : result) x = normal(engine);
  return result;
}

/// The mean of 20 steps: two decompose.
template <class Rule>
void measure_steps(benchmark::State& state, Rule const& rule) {
  std::int64_t const side = state.range(0);
  auto weights = random_matrix(side), gradient = weights;
  kv_store store{cpu_devices(1), rule, synchronous{}};
  store.init("w", tensor_view(weights.data(), shape{side, side}));
  for (int t = 0; t < rule.interval; ++t) store.push("w", tensor_view(gradient.data(), shape{side, side}));
  for (auto _ : state) store.push("w", tensor_view(gradient.data(), shape{side, side}));
}

void shampoo(benchmark::State& state) { measure_steps(state, update::shampoo{.interval = 10}); }
void soap(benchmark::State& state) { measure_steps(state, update::soap{.interval = 10}); }

void product(benchmark::State& state) {
  std::int64_t const side = state.range(0);
  auto const a = random_matrix(side);
  auto c = a;
  matrix_products<cpu_device<>> const blas(cpu_devices(1).front());
  product_factor<float> const of_a{a.data(), side};
  for (auto _ : state) blas.multiply(side, side, side, 1.0F, of_a, of_a, 0.0F, c.data(), product_precision::full);
}

void configure(benchmark::internal::Benchmark* entry) {
  entry->ArgName("side")->Arg(256)->Arg(1024)->Unit(benchmark::kMillisecond)->UseRealTime()->Iterations(20);
}
BENCHMARK(product)->Apply(configure);
BENCHMARK(shampoo)->Apply(configure);
BENCHMARK(soap)->Apply(configure);

}  // namespace
