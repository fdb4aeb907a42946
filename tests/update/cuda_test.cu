/// @file
/// Rules on GPUs against the same rules on CPUs. Without a GPU every case reports that it was skipped.
#include <pushpull/pushpull.cuh>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "support/catch.hpp"
#include "support/cuda_devices.cuh"
#include "update/rule_runner.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;

bool no_device() { return pp::test::logical_devices(1).empty(); }

template <class T>
std::vector<T> weight() {
  std::vector<T> w(9001);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(i % 13) / 8 - 0.7F;
  return w;
}
template <class T>
std::vector<T> gradient(std::size_t t) {
  std::vector<T> g(9001);
  for (std::size_t i = 0; i < g.size(); ++i) g[i] = static_cast<float>((i * 31 + t) % 17) / 8 - 1.03F;
  return g;
}

/// Weights of one key after 5 steps of `updater`.
template <class D, class Updater>
std::vector<float> trained(std::vector<D> const& devices, Updater const& updater) {
  pp::kv_store store{devices, updater};
  auto w = weight<float>();
  store.init("w", w);
  for (std::size_t t = 1; t <= 5; ++t) {
    auto const g = gradient<float>(t);
    store.pushpull("w", g, w).wait();
  }
  return w;
}

/// Weights after 5 steps of a rule that looks at one element at a time: its pass on a GPU, cut into runs as there would be
/// devices, without a store, which takes most of the time to compile.
template <class Rule>
std::vector<float> passed(Rule const& rule, std::size_t devices) {
  static_assert(!pp::PreReduction<Rule>);
  using types = pp::pass::element_types<float, float, float, float, float>;
  using clock_type = pp::pass::clock_of<Rule, types>;
  constexpr std::size_t states = Rule::state_names.size();
  pp::cuda_device const device(0);
  auto w = weight<float>();
  auto const padded = static_cast<std::size_t>(pp::detail::padded(w.size()));
  auto const memory_of = [&](void const* from, std::size_t bytes, std::size_t all) {
    pp::buffer<pp::cuda_device> memory(device, all);
    device.fill_zero(memory.data(), all);
    device.copy(memory.data(), from, bytes);
    return memory;
  };
  auto const array = [&](std::vector<float> const& x) {
    return memory_of(x.data(), x.size() * sizeof(float), padded * sizeof(float));
  };
  auto const floats = [](auto const& memory) { return static_cast<float*>(memory.data()); };
  auto const master = array(w), gradients = array({}), mirror = array({});
  std::vector<pp::buffer<pp::cuda_device>> state;
  for (std::size_t s = 0; s != states; ++s) state.push_back(array({}));
  clock_type const start{};
  auto const rules = memory_of(&rule, sizeof rule, sizeof rule), clocks = memory_of(&start, sizeof start, sizeof start);

  pp::pass::plan<pp::cuda_device, types, states> plan;
  plan.add_clock(0, true);
  std::vector<std::int64_t> loads(devices);
  for (auto const& part : pp::detail::lay_out_slices(std::vector{w.size()}, {true}, loads, 1).parts) {
    if (part.size() <= 0) continue;
    typename decltype(plan)::run_type run{};
    run.size = part.size();
    run.first_element = part.begin;
    run.master = floats(master) + part.begin;
    for (std::size_t s = 0; s != states; ++s) run.state[s] = floats(state[s]) + part.begin;
    plan.add(run, std::vector<float const*>{floats(gradients) + part.begin},
             std::vector<float*>{floats(mirror) + part.begin});
  }
  REQUIRE(plan.size() == devices);
  plan.commit(device);
  auto const* const on_device = static_cast<Rule const*>(rules.data());
  auto* const clock = static_cast<clock_type*>(clocks.data());
  for (std::size_t t = 1; t <= 5; ++t) {
    auto const g = gradient<float>(t);
    device.copy(gradients.data(), g.data(), g.size() * sizeof(float));
    plan.begin_step(device, on_device, clock);
    plan.template launch<Rule, pp::reduce::sum, pp::pass::memory::foreign>(device, on_device, clock);
  }
  device.copy(w.data(), mirror.data(), w.size() * sizeof(float));
  device.synchronize();
  return w;
}

/// On one, and on three logical devices: bit-identical, and close to what a CPU expects.
void same(char const* name, std::vector<float> const& one, std::vector<float> const& three,
          std::vector<float> const& expected) {
  INFO(name);
  REQUIRE(one == three);
  for (std::size_t i = 0; i < one.size(); ++i)
    if (!(std::abs(one[i] - expected[i]) <= 1e-5F)) FAIL(name << " " << i << ": " << one[i] << " " << expected[i]);
}
template <class Updater>
std::vector<float> expected_of(Updater const& updater) {
  pp::test::rule_runner<float, float, Updater> host(updater, weight<double>(), 1);
  for (std::size_t t = 1; t <= 5; ++t) host.step(gradient<double>(t));
  return host.mirror();
}

/// Rules that look at one element at a time.
template <class Updater>
void same_passes(char const* name, Updater const& updater) {
  same(name, passed(updater, 1), passed(updater, 3), expected_of(updater));
}
template <class Updater>
void same_on_gpus(char const* name, Updater const& updater, std::vector<float> const& expected) {
  same(name, trained(std::vector{pp::cuda_device(0)}, updater), trained(pp::test::logical_devices(), updater),
       expected);
}
/// The CPU runs the rule's pass without a store, which would double the time to compile.
template <class Updater>
void same_on_gpus(char const* name, Updater const& updater) {
  same_on_gpus(name, updater, expected_of(updater));
}

}  // namespace

TEST_CASE("rules that prepare scalars or select equal those on CPUs", "[cuda]") {
  if (no_device()) return;
  same_passes("nadam", update::nadam{0.01});
  same_passes("radam", update::radam{0.01});
  same_passes("ftrl", update::ftrl{});
  same_passes("dcasgd", update::dcasgd{0.1, 0.4});
  same_passes("lion", update::lion{0.01, 0.9, 0.99, 0.1});
}

TEST_CASE("sgld's noise on GPUs is that on CPUs", "[cuda]") {
  if (no_device()) return;
  same_passes("sgld", update::rescale(0.5) | update::sgld{.seed = 3});
}

TEST_CASE("transforms with states and wrappers equal those on CPUs", "[cuda]") {
  if (no_device()) return;
  same_passes("trace", update::trace(0.9, true) | update::sgd{0.01});
  same_passes("add_noise", update::add_noise(0.01, 0.5, 3) | update::sgd{0.1});
  same_on_gpus("noise, norms, a loss scale and wrappers",
               update::dynamic_loss_scale{} | update::add_noise(0.01, 0.5, 3) | update::clip_global_norm(1) |
                   update::adamw{0.01} | update::lookahead(2) | update::ema(0.9));
  same_on_gpus("cautious", update::adan{0.01} | update::cautious() | update::swa(2, 2));
}

TEST_CASE("weights and averages change places on GPUs, and back", "[cuda]") {
  if (no_device()) return;
  pp::kv_store store{pp::test::logical_devices(2), update::adam{0.1} | update::ema(0.5)};
  pp::parameter_store parameters{store};
  std::vector<float> const start(5003, 1.0F);
  parameters.add("w", start);
  auto const mirror = [&](std::size_t n) { return pp::to_vector(parameters.value("w", n)); };
  for (int t = 0; t < 2; ++t) {
    for (std::size_t n = 0; n < 2; ++n) pp::copy(pp::view_of(start), parameters.grad("w", n));
    parameters.update_all();
  }
  auto const trained = mirror(0), average = store.state("w", "ema");
  REQUIRE(trained != average);
  parameters.swap("ema");
  for (std::size_t n = 0; n < 2; ++n) REQUIRE(mirror(n) == average);
  REQUIRE(store.state("w", "ema") == trained);
  parameters.swap("ema");
  for (std::size_t n = 0; n < 2; ++n) REQUIRE(mirror(n) == trained);
}

TEST_CASE("numbers of rows and columns on GPUs are those on CPUs", "[cuda]") {
  if (no_device()) return;
  auto const train = [](auto const& devices, auto const& updater) {
    pp::kv_store store{devices, updater};
    pp::cpu_device<> const host;
    pp::tensor<float> w(host, {2, 61, 117}), g(host, {2, 61, 117});
    for (std::size_t i = 0; i < w.size(); ++i) w.data()[i] = static_cast<float>(i % 13) / 8 - 0.7F;
    store.init("w", w);
    for (std::size_t t = 1; t <= 5; ++t) {
      for (std::size_t i = 0; i < g.size(); ++i) g.data()[i] = static_cast<float>((i * 31 + t) % 17) / 8 - 1.03F;
      store.pushpull("w", g, w).wait();
    }
    if constexpr (pp::pass::keeps_rows_alone<std::remove_cvref_t<decltype(updater)>>) {
      pp::row_sparse<float> rows(host, w.shape(), 1);
      rows.row_ids()[0] = 1;
      std::copy_n(g.data(), rows.row_length(), rows.values());
      store.init("of another owner", w);
      store.push("w", rows).wait();
      store.push("of another owner", rows).wait();
      store.pull("of another owner", g).wait();
      store.pull("w", w).wait();
    }
    auto result = pp::to_vector(w.view());
    for (float const x : pp::to_vector(g.view())) result.push_back(x);
    return result;
  };
  auto const compare = [&](auto const& updater) {
    auto const one = train(std::vector{pp::cuda_device(0)}, updater);
    REQUIRE(one == train(pp::test::logical_devices(), updater));
    auto const expected = train(pp::cpu_devices(2), updater);
    for (std::size_t i = 0; i < one.size(); ++i)
      if (!(std::abs(one[i] - expected[i]) <= 1e-5F)) FAIL(i << ": " << one[i] << " " << expected[i]);
  };
  compare(update::group_adagrad{0.1});
  compare(update::clip_value(1) | update::centralize{} | update::adafactor{0.05});
}

TEST_CASE("rules of signs, maxima, several states and norms equal those on CPUs", "[cuda]") {
  if (no_device()) return;
  same_passes("signum", update::signum{0.01});
  same_passes("adadelta", update::adadelta{});
  same_passes("centered_rmsprop", update::centered_rmsprop{0.01});
  same_passes("amsgrad", update::amsgrad{0.01});
  same_passes("ftml", update::ftml{});
  same_on_gpus("lans", update::lans{0.01});
  same_on_gpus("mxnet1::lars", pp::compat::mxnet1::lars());
}

TEST_CASE("a form of another library equals that on CPUs", "[cuda]") {
  if (no_device()) return;
  same_passes("mxnet1::rmsprop_centered", pp::compat::mxnet1::rmsprop_centered({.learning_rate = 0.01, .wd = 0.1}));
}
