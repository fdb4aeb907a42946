/// @file
/// A step of Muon over the matrices of one transformer layer on a GPU, against its products alone. Says that it is skipped
/// where there is no GPU.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <pushpull/pushpull.cuh>
#include <pushpull/update/muon.cuh>

#include "support/launch_seconds.cuh"

namespace {

using namespace pushpull;

template <class E>
struct small_numbers {
  E* to;
  __host__ __device__ void operator()(std::int64_t i) const {
    to[i] = convert<E>(static_cast<float>(static_cast<std::uint32_t>(i) * 2654435761U >> 8) * 0x1p-24F - 0.5F);
  }
};

/// Of the products of a step alone, over arrays of E.
template <class E>
double seconds_of_products(cuda_device const& device, update::muon const& rule, std::vector<shape> const& shapes) {
  matrix_products<cuda_device> const blas(device);
  std::size_t most = 0;
  for (shape const& s : shapes) most = std::max(most, s.size());
  std::vector<buffer<cuda_device>> memory;
  E* arrays[4];
  for (E*& first : arrays) {
    memory.emplace_back(device, most * sizeof(E));
    first = static_cast<E*>(memory.back().data());
    device.for_each(static_cast<std::int64_t>(most), small_numbers<E>{first});
  }
  auto const [x, next, g, polynomial] = arrays;
  return bench::launch_seconds(device, [&] {
    for (shape const& s : shapes)
      for (std::int64_t k = 0; k < rule.iterations; ++k) {
        bool const tall = s[0] > s[1];
        std::int64_t const n = std::min(s[0], s[1]);
        product_factor<E> const plain{x, s[1]}, transposed{x, s[1], true}, square{g, n}, left{polynomial, n};
        blas.multiply(n, n, std::max(s[0], s[1]), 1.0F, tall ? transposed : plain, tall ? plain : transposed, 0.0F,
                      next, rule.products);
        blas.multiply(n, n, n, 1e-6F, square, square, 0.5F, polynomial, rule.products);
        blas.multiply(s[0], s[1], n, 1.0F, tall ? plain : left, tall ? left : plain, 0.0F, next, rule.products);
      }
  });
}

/// Attention and MLP of a layer of width `range(0)`, `range(1)` layers, in the precision of products.
void measure(benchmark::State& state, product_precision precision) {
  auto const devices = cuda_devices();
  if (devices.empty()) return state.SkipWithError("skipped: no GPU");
  cuda_device const& device = devices.front();
  std::int64_t const width = state.range(0);
  std::vector<shape> shapes;
  std::vector<std::string> names;
  for (std::int64_t layer = 0; layer < state.range(1); ++layer)
    for (shape const& s :
         {shape{3 * width, width}, shape{width, width}, shape{4 * width, width}, shape{width, 4 * width}}) {
      names.push_back(std::to_string(names.size()));
      shapes.push_back(s);
    }
  std::vector<buffer<cuda_device>> memory;
  std::vector<tensor_view<float, cuda_device>> weights, gradients;
  for (shape const& s : shapes)
    for (auto* const list : {&weights, &gradients}) {
      memory.emplace_back(device, s.size() * sizeof(float));
      auto* const first = static_cast<float*>(memory.back().data());
      device.for_each(static_cast<std::int64_t>(s.size()), small_numbers<float>{first});
      list->emplace_back(first, s, device);
    }
  update::muon const rule{.products = precision};
  kv_store store{std::vector{device}, rule, synchronous{}};
  store.init(names, weights);
  double const ours = bench::launch_seconds(device, [&] { store.pushpull(names, gradients, weights); });

  double const products = precision == product_precision::bf16 ? seconds_of_products<bfloat16>(device, rule, shapes)
                                                               : seconds_of_products<float>(device, rule, shapes);
  for ([[maybe_unused]] auto _ : state) state.SetIterationTime(ours);
  state.counters["products ms"] = products * 1e3;
  state.counters["x products"] = ours / products;  // the step's time over that of the products
}

bool const entered = [] {
  auto const enter = [](std::string const& name, product_precision precision) {
    auto* const entry = benchmark::RegisterBenchmark(("cuda/muon/" + name).c_str(), measure, precision);
    entry->ArgNames({"width", "layers"})->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(1);
    for (auto const& [width, layers] : {std::pair{768, 12}, {2048, 4}, {4096, 2}}) entry->Args({width, layers});
  };
  enter("full", product_precision::full);
  enter("tf32", product_precision::tf32);
  enter("bfloat16", product_precision::bf16);
  return true;
}();

}  // namespace
