/// @file
/// Rows of a large table: pushes of row-sparse gradients and pulls of rows, against loops over the same rows.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include <benchmark/benchmark.h>
#include <oneapi/tbb/blocked_range.h>
#include <oneapi/tbb/parallel_for.h>
#include <pushpull/pushpull.hpp>

#include "support/contest.hpp"

namespace {

using namespace pushpull;

constexpr std::int64_t table_rows = 1'000'000, given_rows = 100'000, length = 64;

/// Different rows of the table, in the order in which they were drawn or ascending.
std::vector<std::int64_t> drawn_rows(bool sorted) {
  std::vector<std::int64_t> ids(static_cast<std::size_t>(table_rows));
  std::iota(ids.begin(), ids.end(), 0);
  std::shuffle(ids.begin(), ids.end(), std::mt19937(1));
  ids.resize(static_cast<std::size_t>(given_rows));
  if (sorted) std::sort(ids.begin(), ids.end());
  return ids;
}

/// f(i) for every given row, on all threads.
template <class F>
void for_each_row(F const& f) {
  tbb::parallel_for(tbb::blocked_range<std::int64_t>(0, given_rows), [&](auto const& range) {
    for (std::int64_t i = range.begin(); i != range.end(); ++i) f(i);
  });
}

/// @param argument  1 if the rows come in ascending order.
void push(benchmark::State& state) {
  cpu_device<> const device;
  shape const whole{table_rows, length};
  auto const ids = drawn_rows(state.range(0) == 1);
  std::vector<float> values(static_cast<std::size_t>(given_rows * length), 0.01F);
  std::vector<float> weight(whole.size(), 1.0F), momentum(whole.size());
  kv_store store{std::vector{device}, update::momentum{}};
  store.init("w", tensor_view(weight.data(), whole));
  row_sparse_view const gradient(values.data(), ids.data(), given_rows, whole);
  bench::contest contest(1);
  contest.enter("ours", [&] { store.push("w", gradient).wait(); });
  contest.enter("loop", [&] {  // no row stands twice, and nobody checks it
    for_each_row([&](std::int64_t i) {
      float* const w = weight.data() + ids[static_cast<std::size_t>(i)] * length;
      float* const m = momentum.data() + ids[static_cast<std::size_t>(i)] * length;
      float const* const g = values.data() + i * length;
#pragma GCC ivdep
      for (std::int64_t j = 0; j < length; ++j) {
        m[j] = 0.9F * m[j] + g[j];
        w[j] -= 0.01F * m[j];
      }
    });
  });
  contest.run(state, static_cast<double>(given_rows * length), 20.0 * static_cast<double>(given_rows * length));
}

void pull(benchmark::State& state) {
  cpu_device<> const device;
  shape const whole{table_rows, length};
  auto const ids = drawn_rows(state.range(0) == 1);
  std::vector<float> const weight(whole.size(), 1.0F);
  std::vector<float> gathered(static_cast<std::size_t>(given_rows * length));
  kv_store store{std::vector{device}, update::momentum{}};
  store.init("w", tensor_view(weight.data(), whole));
  row_sparse<float> output(device, whole);
  bench::contest contest(1);
  contest.enter("ours", [&] { store.row_sparse_pull("w", output, ids).wait(); });
  contest.enter("loop", [&] {
    for_each_row([&](std::int64_t i) {
      std::memcpy(gathered.data() + i * length, weight.data() + ids[static_cast<std::size_t>(i)] * length,
                  static_cast<std::size_t>(length) * sizeof(float));
    });
  });
  contest.run(state, static_cast<double>(given_rows * length), 8.0 * static_cast<double>(given_rows * length));
}

void entry(char const* name, void (*run)(benchmark::State&)) {
  benchmark::RegisterBenchmark(name, run)
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond)
      ->Iterations(9)
      ->Arg(0)
      ->Arg(1);
}

bool const entered = [] {
  entry("kvstore/push 1e5 of 1e6 rows of 64 floats", push);
  entry("kvstore/pull 1e5 of 1e6 rows of 64 floats", pull);
  return true;
}();

}  // namespace
