/// @file
/// The pass on CPUs against a hand-written loop, in-place axpy, three separate steps, and a scalar functor under
/// Thrust.
#include <cstdint>
#include <string>
#include <utility>

#include <benchmark/benchmark.h>
#include <pushpull/pushpull.hpp>

#include "pass/bare_pass.hpp"
#include "pass/hand_loops.hpp"
#include "pass/rules.hpp"
#include "support/contest.hpp"
#include "support/operands.hpp"

#ifndef PUSHPULL_BENCH_PREFIX
#define PUSHPULL_BENCH_PREFIX ""  // a build with other options sets it, so that its rows can be told apart
#endif

namespace {

using namespace pushpull;

template <class T, class Rule>
void measure(benchmark::State& state) {
  auto const gradients = static_cast<std::size_t>(state.range(0));
  auto const mirrors = static_cast<std::size_t>(state.range(1));
  std::int64_t const size = std::int64_t{1} << state.range(2);
  bench::by_hand<Rule> const rule;
  cpu_device<> const device;
  bench::operands<T> o(device, size, gradients, mirrors, rule.states);
  bench::vectors<T> plain(size, gradients, mirrors, rule.states);
  bench::operands<float> line(device, size, 1, 0, 0);

  bench::contest contest(static_cast<std::size_t>((std::int64_t{1} << 20) / size));
  bench::bare_pass<T, Rule> pass(device, o, Rule{});
  contest.enter("ours", [&] { pass(); });
  contest.enter("loop", [&] { bench::fused_loop(rule, o, gradients, mirrors); });
  // Bandwidth against bandwidth: above 1 where the pass moves more bytes per second.
  contest.enter(
      "axpy", [&] { bench::axpy(line.weight, line.gradient[0], size); },
      o.bytes_moved() / (12.0 * static_cast<double>(size)));
  contest.enter("steps", [&] { bench::three_steps(rule, o, false); });
  contest.enter("steps streaming", [&] { bench::three_steps(rule, o, true); });
  contest.enter("thrust", [&] { bench::scalar_functor(rule, plain); });
  if (gradients == 1 && mirrors == 0)
    contest.enter("thrust zip", [&] { bench::zipped_functor(rule, plain, std::make_index_sequence<rule.states>{}); });
  bench::bare_pass<T, bench::user_adam> user(device, o, {});
  if (rule.states == 2) contest.enter("user's", [&] { user(); });
  contest.run(state, static_cast<double>(size), o.bytes_moved());
}

template <class T, class Rule>
void enter(std::string const& name) {
  auto* const entry = benchmark::RegisterBenchmark((PUSHPULL_BENCH_PREFIX "pass/" + name).c_str(), measure<T, Rule>);
  entry->ArgNames({"K", "R", "log2"})->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(9);
  for (auto const& [gradients, mirrors] : {std::pair{1, 0}, {1, 1}, {1, 4}, {4, 1}, {4, 4}, {8, 8}})
    for (int const size : {10, 14, 18, 22, 25, 26}) entry->Args({gradients, mirrors, size});
}

template <class Rule>
void enter_types(std::string const& name) {
  enter<float, Rule>(name + "/float");
  enter<bfloat16, Rule>(name + "/bfloat16");
}

bool const entered = [] {
  enter_types<update::sgd>("sgd");
  enter_types<update::momentum>("momentum");
  enter_types<update::adam>("adam");
  return true;
}();

}  // namespace
