/// @file
/// What the stages of a pipe cost; every elementwise rule against a loop by hand and against axpy; rules with norms against
/// two loops by hand; Adam with states of 8 bits against Adam with float states.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include <benchmark/benchmark.h>
#include <pushpull/pushpull.hpp>

#include "pass/bare_pass.hpp"
#include "pass/hand_loops.hpp"
#include "support/contest.hpp"
#include "support/operands.hpp"
#include "updaters/hand_rules.hpp"

namespace {

using namespace pushpull;
using V = bench::vector_register;

std::size_t calls_for(std::int64_t size) { return static_cast<std::size_t>((std::int64_t{1} << 20) / size); }

void configure(benchmark::internal::Benchmark* entry) {
  entry->ArgNames({"log2"})->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(9);
  for (int const size : {14, 25}) entry->Args({size});
}

/// A pipe of stages without states, against `rescale | sgd`, which moves the same bytes.
template <class Pipe>
void measure_pipe(benchmark::State& state, Pipe const& pipe) {
  std::int64_t const size = std::int64_t{1} << state.range(0);
  cpu_device<> const device;
  bench::operands<float> o(device, size, 1, 0, 0);
  bench::bare_pass<float, Pipe> pass(device, o, pipe);
  auto const one = update::rescale(0.5) | update::sgd{};
  bench::bare_pass<float, std::remove_const_t<decltype(one)>> alone(device, o, one);
  bench::contest contest(calls_for(size));
  contest.enter("ours", [&] { pass(); });
  contest.enter("one stage", [&] { alone(); });
  contest.run(state, static_cast<double>(size), o.bytes_moved());
}

/// A rule over a gradient, a weight and its states. "x loop" above 1: faster than by hand. "x axpy" is the ratio of
/// bandwidths: near 1 memory limits the rule, far below 1 its arithmetic does.
template <class Rule, class Hand>
void measure_rule(benchmark::State& state, Rule const& rule, Hand const& hand) {
  static_assert(Hand::states == detail::state_count<Rule>);
  std::int64_t const size = std::int64_t{1} << state.range(0);
  cpu_device<> const device;
  bench::operands<float> o(device, size, 1, 0, Hand::states), line(device, size, 1, 0, 0);
  bench::bare_pass<float, Rule> pass(device, o, rule);
  bench::contest contest(calls_for(size));
  contest.enter("ours", [&] { pass(); });
  contest.enter("loop", [&] { bench::fused_loop(hand, o, 1, 0); });
  contest.enter(
      "axpy", [&] { bench::axpy(line.weight, line.gradient[0], size); },
      o.bytes_moved() / (12.0 * static_cast<double>(size)));
  contest.run(state, static_cast<double>(size), o.bytes_moved());
}

double added(V const& x) {
  float lane[bench::lanes];
  x.store_unaligned(lane);
  double result = 0;
  for (float const one : lane) result += double{one};
  return result;
}

/// Sums over all elements, task by task: f(first, last) returns an array of registers.
template <std::size_t N, class F>
std::array<double, N> sum(std::int64_t n, F const& f) {
  std::vector<std::array<double, N>> parts(static_cast<std::size_t>((n + bench::task_size - 1) / bench::task_size));
  bench::for_ranges(n, [&](std::int64_t first, std::int64_t last) {
    std::array<V, N> const total = f(first, last);
    for (std::size_t k = 0; k < N; ++k) parts[static_cast<std::size_t>(first / bench::task_size)][k] = added(total[k]);
  });
  std::array<double, N> result{};
  for (auto const& part : parts)
    for (std::size_t k = 0; k < N; ++k) result[k] += part[k];
  return result;
}

constexpr float b1 = 0.9F, b2 = 0.999F, e = 1e-6F, c2 = 1.02F, r = 1e-3F;

/// The norm of the gradient, then clipped Adam.
void clipped_adam(bench::operands<float>& o) {
  auto const sums = sum<1>(o.size, [&](std::int64_t first, std::int64_t last) {
    std::array<V, 4> s{V(0), V(0), V(0), V(0)};
    for (std::int64_t i = first; i < last; i += 4 * bench::lanes)
      for (std::int64_t j = 0; j < 4; ++j) {
        V const g = bench::load(o.gradient[0] + i + j * bench::lanes);
        s[static_cast<std::size_t>(j)] += g * g;
      }
    return std::array<V, 1>{s[0] + s[1] + s[2] + s[3]};
  });
  auto const factor = static_cast<float>(std::min(1.0, 1 / (std::sqrt(sums[0]) + 1e-6)));
  auto const rule = bench::by_formula<2>([factor](V& w, V const& g, V& m, V& v) {
    V const h = factor * g;
    m = b1 * m + (1 - b1) * h;
    v = b2 * v + (1 - b2) * h * h;
    w -= r * m / (detail::simd_sqrt(v) + e);
  });
  bench::fused_loop(rule, o, 1, 0);
}

/// The norms of the weight and of LAMB's direction, then its step.
void lamb(bench::operands<float>& o) {
  auto const direction = [](V const& w, V const& g, V& m, V& v) {
    m = b1 * m + (1 - b1) * g;
    v = b2 * v + (1 - b2) * g * g;
    return 1.01F * m / (detail::simd_sqrt(v) * c2 + e) + 0.01F * w;
  };
  auto const sums = sum<2>(o.size, [&](std::int64_t first, std::int64_t last) {
    std::array<V, 2> s{V(0), V(0)};
    for (std::int64_t i = first; i < last; i += bench::lanes) {
      V const w = bench::load(o.weight + i);
      V m = bench::load(o.state[0] + i), v = bench::load(o.state[1] + i);
      V const u = direction(w, bench::load(o.gradient[0] + i), m, v);
      s[0] += w * w;
      s[1] += u * u;
    }
    return s;
  });
  auto const rate = static_cast<float>(1e-3 * (sums[0] > 0 && sums[1] > 0 ? std::sqrt(sums[0] / sums[1]) : 1));
  bench::fused_loop(bench::by_formula<2>([=](V& w, V const& g, V& m, V& v) { w -= rate * direction(w, g, m, v); }), o,
                    1, 0);
}

/// A step over one resident parameter on one device, against loops by hand over arrays of the same size.
template <class Rule>
void measure_norm(benchmark::State& state, Rule const& rule, void (*hand)(bench::operands<float>&), double bytes) {
  std::int64_t const size = std::int64_t{1} << state.range(0);
  cpu_device<> const device;
  kv_store<float, cpu_device<>, Rule> store{{device}, rule};
  parameter_store parameters{store};
  std::vector<float> const weight(static_cast<std::size_t>(size), 1.0F);
  parameters.add("w", weight);
  auto const g = parameters.grad("w", std::size_t{0});
  std::fill_n(g.data(), g.size(), 0.01F);
  bench::operands<float> o(device, size, 1, 0, 2);
  bench::contest contest(calls_for(size));
  contest.enter("ours", [&] { parameters.update_all(); });
  contest.enter("two loops", [&] { hand(o); });
  contest.run(state, static_cast<double>(size), bytes * static_cast<double>(size));
}

/// A store with one resident parameter on one device, whose calls return when their work is finished.
template <class... Policies>
struct trainer {
  kv_store<float, cpu_device<>, update::adam, Policies..., synchronous> store{{cpu_device<>()}, update::adam{}};
  parameter_store<kv_store<float, cpu_device<>, update::adam, Policies..., synchronous>> parameters{store};

  explicit trainer(std::int64_t size) {
    parameters.add("w", std::vector<float>(static_cast<std::size_t>(size), 1.0F));
    auto const g = parameters.grad("w", std::size_t{0});
    for (std::size_t i = 0; i < g.size(); ++i) g.data()[i] = 0.01F + 0.001F * static_cast<float>(i % 97);
  }
};

/// "x float" above 1: faster than with float states. @param bytes  That a step moves per element.
template <class Codecs>
void measure_codecs(benchmark::State& state, double bytes) {
  std::int64_t const size = std::int64_t{1} << state.range(0);
  trainer<Codecs> coded(size);
  trainer<> plain(size);
  bench::contest contest(calls_for(size));
  contest.enter("ours", [&] { coded.parameters.update_all(); });
  contest.enter("float", [&] { plain.parameters.update_all(); });
  contest.run(state, static_cast<double>(size), bytes * static_cast<double>(size));
}

template <class F>
void enter(std::string const& name, F const& f) {
  configure(benchmark::RegisterBenchmark(("updaters/" + name).c_str(), f));
}

bool const entered = [] {
  auto const pipe = [](char const* name, auto const& stages) {
    enter(std::string("pipe/") + name, [=](benchmark::State& state) { measure_pipe(state, stages); });
  };
  auto const three = update::rescale(0.5) | update::clip_value(1) | update::weight_decay(1e-4);
  pipe("1", update::rescale(0.5) | update::sgd{});
  pipe("3", three | update::sgd{});
  pipe("6", three | three | update::sgd{});
  bench::for_each_rule_by_hand([](char const* name, auto const& rule, auto const& hand) {
    enter(std::string("rule/") + name, [=](benchmark::State& state) { measure_rule(state, rule, hand); });
  });
  enter("norm/clip_global_norm and adam", [](benchmark::State& state) {
    measure_norm(state, update::clip_global_norm(1) | update::adam{}, clipped_adam, 32);
  });
  using of_squares = codec::of<"exp_avg_sq", codec::unsigned_float8>;
  auto const states = [](char const* name, auto codecs, double bytes) {
    enter(std::string("states/") + name,
          [bytes](benchmark::State& state) { measure_codecs<decltype(codecs)>(state, bytes); });
  };
  states("linear, unsigned_float8", state_codecs<256, codec::linear, of_squares>{}, 16.0625);
  states("float8, unsigned_float8", state_codecs<256, codec::float8, of_squares>{}, 16.0625);
  states("linear, unsigned_float4", state_codecs<128, codec::linear, codec::of<"exp_avg_sq", codec::unsigned_float4>>{},
         15.125);
  states("dynamic, unsigned_dynamic",
         state_codecs<256, codec::dynamic, codec::of<"exp_avg_sq", codec::unsigned_dynamic>>{}, 16.0625);
  enter("norm/lamb",
        [](benchmark::State& state) { measure_norm(state, update::lamb{.weight_decay = 0.01}, lamb, 44); });
  return true;
}();

}  // namespace
