/// @file
/// A table with 10^7 ids, whose batches follow Zipf's law, against the same row-sparse keys with dense row numbers.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include <benchmark/benchmark.h>
#include <pushpull/pushpull.hpp>
#include <pushpull/store/table/embedding_table.hpp>

#include "support/contest.hpp"

namespace {

using namespace pushpull;

constexpr std::int64_t vocabulary = 10'000'000, batch_size = 1 << 16;
constexpr double exponent = 1.05;

/// The id of the word that comes in place `rank` of the frequencies: as a hash, anywhere among 2^64.
std::int64_t id_of(std::int64_t rank) {
  auto x = static_cast<std::uint64_t>(rank) * 0x9E3779B97F4A7C15U;
  return static_cast<std::int64_t>(x ^ (x >> 29));
}

/// Ids, and their rows.
struct batch {
  std::vector<std::int64_t> ids, rows;
};

/// Batches drawn by Zipf's law. @param row_of  The row of each rank.
std::vector<batch> draw(std::vector<std::int64_t> const& row_of) {
  std::vector<double> sums(static_cast<std::size_t>(vocabulary));
  double sum = 0;
  for (std::size_t rank = 0; rank < sums.size(); ++rank) sums[rank] = sum += std::pow(double(rank + 1), -exponent);
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> uniform(0, sum);
  std::vector<batch> result(16);
  for (batch& b : result)
    for (std::int64_t i = 0; i < batch_size; ++i) {
      auto const rank = std::lower_bound(sums.begin(), sums.end() - 1, uniform(random)) - sums.begin();
      b.ids.push_back(id_of(rank));
      b.rows.push_back(row_of[static_cast<std::size_t>(rank)]);
    }
  return result;
}

/// Both stores hold the same rows in the same order, a random one.
template <class Rule, std::int64_t Length>
struct tables {
  shape const whole{vocabulary, Length};
  kv_store<float, cpu_device<>, Rule> of_ids{cpu_devices(1)}, of_rows{cpu_devices(1)};
  embedding_table<kv_store<float, cpu_device<>, Rule>> table{
      of_ids, "w", Length, {.initial_rows = vocabulary}, zero_rows()};
  double first_seconds = 0;
  std::vector<batch> batches;
  std::vector<float> values = std::vector<float>(static_cast<std::size_t>(batch_size * Length), 0.01F);

  tables() {
    of_rows.init("w", row_sparse_view<float const>(nullptr, nullptr, 0, whole));
    std::vector<std::int64_t> ranks(static_cast<std::size_t>(vocabulary)), row_of(ranks.size());
    std::iota(ranks.begin(), ranks.end(), 0);
    std::shuffle(ranks.begin(), ranks.end(), std::mt19937(1));
    for (std::size_t row = 0; row < ranks.size(); ++row)
      row_of[static_cast<std::size_t>(ranks[row])] = std::int64_t(row);
    auto const start = std::chrono::steady_clock::now();
    for (auto rest = std::span(ranks); !rest.empty();) {
      auto const part = rest.first(std::min(rest.size(), static_cast<std::size_t>(batch_size)));
      rest = rest.subspan(part.size());
      std::vector<std::int64_t> ids;
      for (std::int64_t const rank : part) ids.push_back(id_of(rank));
      table.pull(ids, std::span(values).first(ids.size() * Length));
    }
    first_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    batches = draw(row_of);
  }
};

/// @param argument  0: pull, 1: push, 2: pull and push.
template <class Rule, std::int64_t Length>
void run(benchmark::State& state) {
  static tables<Rule, Length> all;
  auto const kind = state.range(0);
  std::vector<float> pulled(all.values.size());
  row_sparse<float> output(cpu_device<>(), all.whole);
  std::array<std::size_t, 3> next{};
  bench::contest contest(4);
  contest.enter("ours", [&] {
    batch const& b = all.batches[next[0]++ % all.batches.size()];
    if (kind != 1) all.table.pull(b.ids, pulled);
    if (kind != 0) all.table.push(b.ids, all.values);
  });
  auto const push = [&](batch const& b) {
    row_sparse_view const gradient(std::as_const(all.values).data(), b.rows.data(), batch_size, all.whole);
    all.of_rows.push("w", gradient).wait();
  };
  contest.enter("dense", [&] {
    batch const& b = all.batches[next[1]++ % all.batches.size()];
    if (kind != 1) all.of_rows.row_sparse_pull("w", output, b.rows).wait();
    if (kind != 0) push(b);
  });
  if (kind != 1)  // as `dense`, and each row goes to the places of its id, as those of the table do
    contest.enter("dense, a row per id", [&] {
      batch const& b = all.batches[next[2]++ % all.batches.size()];
      all.of_rows.row_sparse_pull("w", output, b.rows).wait();
      auto const ids = std::span(std::as_const(output).row_ids(), static_cast<std::size_t>(output.rows()));
      detail::for_each_range(cpu_device<>(), b.rows.size(), [&](std::size_t first, std::size_t last) {
        for (std::size_t i = first; i < last; ++i)
          std::copy_n(output.values() + (std::lower_bound(ids.begin(), ids.end(), b.rows[i]) - ids.begin()) * Length,
                      Length, pulled.data() + i * Length);
      });
      if (kind == 2) push(b);
    });
  double const elements = static_cast<double>(batch_size * Length) * (kind == 2 ? 2 : 1);
  contest.run(state, elements, 4 * elements);
  state.counters["new ids/s"] = static_cast<double>(vocabulary) / all.first_seconds;
}

template <class Rule, std::int64_t Length>
void entry(char const* name) {
  benchmark::RegisterBenchmark(name, run<Rule, Length>)
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond)
      ->Iterations(12)
      ->DenseRange(0, 2);
}

bool const entered = [] {
  entry<update::adam, 16>("embedding_table/65536 of 1e7 ids, 16 floats, adam");
  entry<update::sgd, 64>("embedding_table/65536 of 1e7 ids, 64 floats, sgd");
  return true;
}();

}  // namespace
