/// @file
/// The pass over foreign memory: any number of sources and outputs, any length and alignment, nothing beside it
/// touched.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <pushpull/pushpull.hpp>
#include <random>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace {

using pushpull::bfloat16;
using pushpull::convert;
using pushpull::half;
namespace pass = pushpull::pass;
namespace update = pushpull::update;

struct one_case {
  std::size_t size, gradients, mirrors, offset;
};

/// The first element of `array` from number 64 on that is aligned to 64 bytes: mirrors from there on may be streamed.
template <class T>
std::size_t aligned(std::vector<T> const& array) {
  std::size_t i = 64;
  while (reinterpret_cast<std::uintptr_t>(array.data() + i) % 64 != 0) ++i;
  return i;
}

/// One momentum step through a plan of one or two runs against a loop in double. Offsets are in elements from aligned
/// memory; guards stand before and behind every foreign array.
template <class T, class Reduction>
void compare(one_case const& c, bool two_runs, double (*finish)(double, std::size_t)) {
  INFO(c.size << " elements, K " << c.gradients << ", R " << c.mirrors << ", offset " << c.offset);
  using types = pass::element_types<T, pushpull::accumulation_t<T>, float, float, T>;
  using rule = update::momentum;
  pushpull::cpu_device<> const device;
  std::size_t const padded = (c.size + pass::padding - 1) / pass::padding * pass::padding + 64;
  std::mt19937 random(static_cast<unsigned>(c.size * 31 + c.gradients));
  auto const value = [&] { return static_cast<float>(static_cast<int>(random() % 17)) / 8 - 1; };
  T const guard = convert<T>(-99.0F);

  std::vector<std::vector<T>> g(c.gradients, std::vector<T>(c.size + 200, guard)), m(c.mirrors, g[0]);
  std::vector<float> w(2 * padded, 0.0F), s(2 * padded, 0.0F), w0, s0;
  for (auto& gradient : g)
    for (std::size_t i = 0; i < c.size; ++i) gradient[aligned(gradient) + c.offset + i] = convert<T>(value());
  for (float& x : w) x = value();
  for (float& x : s) x = value();
  w0 = w;
  s0 = s;

  std::size_t const cut = two_runs ? c.size / 2 / pass::padding * pass::padding : c.size;
  pass::plan<pushpull::cpu_device<>, types, 1> plan;
  plan.add_clock(0, true);
  for (auto const& [first, last] : {std::pair{std::size_t{0}, cut}, {cut, c.size}}) {
    if (first == last) continue;
    typename decltype(plan)::run_type run{};
    run.size = static_cast<std::int64_t>(last - first);
    run.master = w.data() + first;
    run.state[0] = s.data() + first;
    std::vector<T const*> gradients;
    std::vector<T*> mirrors;
    for (auto const& gradient : g) gradients.push_back(gradient.data() + aligned(gradient) + c.offset + first);
    for (auto& mirror : m) mirrors.push_back(mirror.data() + aligned(mirror) + c.offset + first);
    plan.add(run, gradients, mirrors);
  }
  plan.commit(device);
  rule const r{.learning_rate = 0.5, .momentum = 0.5};
  pass::clock_of<rule, types> clock{};
  clock.t = 1;  // the second step: momentum counts
  plan.begin_step(device, &r, &clock);
  plan.template launch<rule, Reduction, pass::memory::foreign>(device, &r, &clock);

  double const unit = std::is_same_v<T, half> ? 0x1p-11 : std::is_same_v<T, bfloat16> ? 0x1p-8 : 0x1p-24;
  for (std::size_t i = 0; i < c.size; ++i) {
    double total = convert<double>(g[0][aligned(g[0]) + c.offset + i]);
    for (std::size_t k = 1; k < c.gradients; ++k) {
      double const next = convert<double>(g[k][aligned(g[k]) + c.offset + i]);
      total = std::is_same_v<Reduction, pushpull::reduce::max> ? std::max(total, next) : total + next;
    }
    double const state = 0.5 * double{s0[i]} + finish(total, c.gradients);
    double const weight = double{w0[i]} - 0.5 * state;
    REQUIRE(std::abs(double{s[i]} - state) <= 1e-5 * (1 + std::abs(state)));
    REQUIRE(std::abs(double{w[i]} - weight) <= 1e-5 * (1 + std::abs(weight)));
    for (auto const& mirror : m) {
      double const mirrored = convert<double>(mirror[aligned(mirror) + c.offset + i]);
      REQUIRE(std::abs(mirrored - double{w[i]}) <= unit * (0.1 + std::abs(double{w[i]})));
    }
  }
  for (auto const& mirror : m)
    for (std::size_t i = 0; i < mirror.size(); ++i)
      if (i < aligned(mirror) + c.offset || i >= aligned(mirror) + c.offset + c.size)
        REQUIRE(convert<double>(mirror[i]) == convert<double>(guard));
}

template <class T>
void all_cases() {
  auto const sum = [](double x, std::size_t) { return x; };
  auto const mean = [](double x, std::size_t k) { return x / static_cast<double>(k); };
  for (std::size_t const size : {1, 2, 63, 64, 65, 127, 1021, 4099})
    for (std::size_t const offset : {0, 1, 3, 8}) {
      compare<T, pushpull::reduce::sum>({size, 2, 2, offset}, false, sum);
      compare<T, pushpull::reduce::mean>({size, 3, 1, offset}, true, mean);
    }
  for (std::size_t count = 1; count <= 20; ++count) {
    compare<T, pushpull::reduce::sum>({257, count, 21 - count, count % 3}, count % 2 == 0, sum);
    compare<T, pushpull::reduce::max>({97, count, count, 0}, false, sum);
  }
  compare<T, pushpull::reduce::sum>({200003, 4, 0, 0}, true, sum);
  compare<T, pushpull::reduce::sum>({200003, 1, 3, 0}, false, sum);  // long enough to be streamed
  compare<T, pushpull::reduce::sum>({200003, 1, 3, 5}, false, sum);
}

}  // namespace

TEMPLATE_TEST_CASE("a plan reduces, updates and mirrors whatever memory it is given", "[pass]", float, half, bfloat16) {
  all_cases<TestType>();
}

TEST_CASE("a plan without runs does nothing", "[pass]") {
  using types = pass::element_types<float, float, float, float, float>;
  pushpull::cpu_device<> const device;
  pass::plan<pushpull::cpu_device<>, types, 0> plan;
  plan.commit(device);
  plan.launch<pass::hold, pushpull::reduce::sum, pass::memory::foreign>(device, nullptr, nullptr);
  REQUIRE(plan.empty());
  REQUIRE(plan.elements() == 0);
}
