/// @file
/// States that are stored as codes, against the codecs and Adam written out in double, for any sizes, devices and rules.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <pushpull/pushpull.hpp>
#include <random>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "support/catch.hpp"
#include "support/message_of.hpp"

namespace {

namespace update = pushpull::update;
namespace codec = pushpull::codec;
using pushpull::state_codecs;
using floats = std::vector<float>;

floats random_floats(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  floats result(size);
  for (float& x : result) x = random() % 7 == 0 ? 0 : normal(random) * std::pow(10.0F, float(random() % 5) - 3);
  return result;
}

/// bitsandbytes' create_dynamic_map(is_signed), in double.
std::vector<double> dynamic_map(bool is_signed) {
  std::vector<double> result{1};
  if (is_signed) result.push_back(0);  // no positive state of an unsigned one becomes 0
  for (int i = 0; i < 7; ++i) {
    int const parts = is_signed ? 1 << i : 2 << i;
    for (int k = 0; k < parts; ++k) {
      double const x = std::pow(10.0, i - 6) * ((0.1 + 0.9 * k / parts) + (0.1 + 0.9 * (k + 1) / parts)) / 2;
      result.push_back(x);
      if (is_signed) result.push_back(-x);
    }
  }
  REQUIRE(result.size() == (is_signed ? 256 : 255));
  return result;
}

/// The values that a codec has for a block of that greatest magnitude. @param sign_of_greatest  -1 if only a negative state has it, else 1.
template <class Codec>
std::vector<double> values(double greatest, [[maybe_unused]] int sign_of_greatest) {
  std::vector<double> result;
  if constexpr (std::same_as<Codec, codec::dynamic> || std::same_as<Codec, codec::unsigned_dynamic>) {
    bool const is_signed = std::same_as<Codec, codec::dynamic>;
    for (double const x : dynamic_map(is_signed)) result.push_back(x * greatest * (is_signed ? sign_of_greatest : 1));
  } else if constexpr (std::same_as<Codec, codec::linear>) {
    for (int k = -127; k <= 127; ++k) result.push_back(k / 127.0 * greatest);
  } else if constexpr (std::same_as<Codec, codec::unsigned_linear>) {
    for (int k = 0; k <= 255; ++k) result.push_back(k / 255.0 * greatest);
  } else if constexpr (std::same_as<Codec, codec::float8>) {
    for (int k = 0; k < 127; ++k) {
      double const fraction = k % 8 / 8.0;
      double const x = k < 8 ? std::ldexp(fraction, -6) : std::ldexp(1 + fraction, k / 8 - 7);
      for (int const sign : {-1, 1}) result.push_back(sign * x / 448 * greatest);
    }
  } else {  // 256 floats with three bits of mantissa, or 16 with one: the least that is not below the greatest, and those below
    int const count = std::same_as<Codec, codec::unsigned_float8> ? 256 : 16, steps = count == 256 ? 8 : 2;
    int exponent = 0;
    double const fraction = std::frexp(greatest * (1 - 1e-6), &exponent);
    int const top = steps * exponent + static_cast<int>(std::ceil(fraction * 2 * steps)) - steps;
    for (int k = top - count + 1; k <= top; ++k) {
      auto const octave = static_cast<int>(std::floor(double(k) / steps));
      result.push_back(std::ldexp(1 + double(k - steps * octave) / steps, octave - 1));
    }
  }
  return result;
}

/// Whether the decoded states of a block are the codec's values that are nearest to the exact ones; one of the two nearest, if
/// it rounds at random.
template <class Codec>
void expect_nearest(std::span<double const> exact, std::span<float const> decoded) {
  double greatest = 0;
  for (double const x : exact) greatest = std::max(greatest, std::abs(x));
  bool const positive = std::ranges::max(exact) >= greatest * (1 - 1e-9);
  std::vector<double> const table =
      greatest > 0 ? values<Codec>(greatest, positive ? 1 : -1) : std::vector<double>{0.0};
  for (std::size_t i = 0; i < exact.size(); ++i) {
    double least = std::numeric_limits<double>::infinity(), above = least, below = least;
    for (double const v : table) {
      least = std::min(least, std::abs(v - exact[i]));
      (v < exact[i] ? below : above) = std::min(v < exact[i] ? below : above, std::abs(v - exact[i]));
    }
    bool const random = std::same_as<Codec, codec::unsigned_float8> || std::same_as<Codec, codec::linear> ||
                        std::same_as<Codec, codec::unsigned_dynamic> || std::same_as<Codec, codec::unsigned_float4>;
    if (random && above < std::numeric_limits<double>::infinity() && below < std::numeric_limits<double>::infinity())
      least = std::max(above, below);
    INFO("element " << i << ": " << exact[i] << " became " << decoded[i] << ", the nearest value is " << least
                    << " away");
    // 16 bits of the unit, float against double
    REQUIRE(std::abs(double{decoded[i]} - exact[i]) <= least + 4e-5 * (std::abs(exact[i]) + greatest * 1e-2));
  }
}

/// Adam over several steps, each of which begins with the states that the store has decoded. @tparam Greatest  The codec of
/// the greatest second moments, where the rule is Amsgrad.
template <std::int64_t Block, class First, class Second, class... Greatest>
void expect_adam(std::vector<std::size_t> const& sizes, bool resident) {
  using rule_type = std::conditional_t<sizeof...(Greatest) == 0, update::adam, update::amsgrad>;
  rule_type const rule{.learning_rate = 0.01};
  pushpull::kv_store store{
      pushpull::cpu_devices(2), rule,
      state_codecs<Block, First, codec::of<"exp_avg_sq", Second>, codec::of<"max_exp_avg_sq", Greatest>...>{}};
  pushpull::parameter_store parameters{store};
  std::vector<std::string> names;
  std::vector<floats> weights;
  for (std::size_t k = 0; k < sizes.size(); ++k) {
    names.push_back("w" + std::to_string(k));
    weights.push_back(random_floats(sizes[k], unsigned(k)));
    if (resident) parameters.add(names.back(), weights.back());
  }
  if (!resident) store.init(names, weights);
  if (resident) parameters.value(names.front(), std::size_t{0});  // keys are made when first needed
  for (int t = 1; t <= 4; ++t) {
    std::vector<floats> gradients, before = weights, m, v, u;
    for (std::size_t k = 0; k < sizes.size(); ++k) {
      gradients.push_back(random_floats(sizes[k], unsigned(100 * t) + unsigned(k)));
      m.push_back(store.state(names[k], "exp_avg"));
      v.push_back(store.state(names[k], "exp_avg_sq"));
      u.push_back(sizeof...(Greatest) == 0 ? floats(sizes[k]) : store.state(names[k], store.state_names().back()));
    }
    if (resident) {
      for (std::size_t k = 0; k < sizes.size(); ++k) {
        std::ranges::copy(gradients[k], parameters.grad(names[k], std::size_t{0}).data());
        std::ranges::fill(std::span(parameters.grad(names[k], std::size_t{1}).data(), sizes[k]), 0.0F);
      }
      parameters.update_all();
      store.wait();
      for (std::size_t k = 0; k < sizes.size(); ++k)
        std::copy_n(parameters.value(names[k], std::size_t{1}).data(), sizes[k], weights[k].begin());
    } else {
      store.pushpull(names, gradients, weights);
      store.wait();
    }
    double const rate = 0.01 / (1 - std::pow(0.9, t)), root = 1 / std::sqrt(1 - std::pow(0.999, t));
    for (std::size_t k = 0; k < sizes.size(); ++k) {
      std::vector<double> exact_m(sizes[k]), exact_v(sizes[k]), exact_u(sizes[k]);
      for (std::size_t i = 0; i < sizes[k]; ++i) {
        double const g = gradients[k][i];
        exact_m[i] = 0.9 * m[k][i] + 0.1 * g;
        exact_v[i] = 0.999 * v[k][i] + 0.001 * g * g;
        exact_u[i] = sizeof...(Greatest) == 0 ? exact_v[i] : std::max(exact_v[i], double{u[k][i]});
        double const w = before[k][i] - rate * exact_m[i] / (std::sqrt(exact_u[i]) * root + 1e-8);
        INFO("step " << t << ", size " << sizes[k] << ", element " << i);
        REQUIRE(double{weights[k][i]} == Approx(w).epsilon(1e-5).margin(1e-6));
      }
      floats const new_m = store.state(names[k], "exp_avg"), new_v = store.state(names[k], "exp_avg_sq");
      floats const new_u = store.state(names[k], store.state_names().back());
      for (std::size_t i = 0; i < sizes[k]; i += Block) {
        std::size_t const count = std::min<std::size_t>(Block, sizes[k] - i);
        expect_nearest<First>(std::span(exact_m).subspan(i, count), std::span(new_m).subspan(i, count));
        expect_nearest<Second>(std::span(exact_v).subspan(i, count), std::span(new_v).subspan(i, count));
        (expect_nearest<Greatest>(std::span(exact_u).subspan(i, count), std::span(new_u).subspan(i, count)), ...);
      }
    }
  }
}

/// A rule of a user's, with a third state that no codec claims.
struct three_states {
  static constexpr auto state_names = pushpull::states("fast", "slow", "count");
  template <class S, class V>
  PUSHPULL_HOST_DEVICE void operator()(S const&, V& w, V const& g, V& fast, V& slow, V& count) const noexcept {
    fast = 0.5 * fast + g;
    slow = 0.75 * slow + fast;
    count += 1;
    w -= 0.125 * slow / count;
  }
};

/// The weights and all states after some steps.
template <class Rule, class... Policies>
std::vector<floats> trained(int devices, std::vector<std::size_t> const& sizes, Rule const& rule,
                            Policies const&... policies) {
  pushpull::kv_store store{pushpull::cpu_devices(devices), rule, policies...};
  std::vector<std::string> names;
  std::vector<floats> weights;
  for (std::size_t k = 0; k < sizes.size(); ++k) {
    names.push_back("w" + std::to_string(k));
    weights.push_back(random_floats(sizes[k], unsigned(k)));
  }
  store.init(names, weights);
  for (unsigned t = 0; t < 5; ++t) {
    std::vector<floats> gradients;
    for (std::size_t k = 0; k < sizes.size(); ++k) gradients.push_back(random_floats(sizes[k], 10 * t + unsigned(k)));
    store.pushpull(names, gradients, weights);
    store.wait();
  }
  for (auto const& key : names)
    for (auto const& state : store.state_names()) weights.push_back(store.state(key, state));
  return weights;
}

}  // namespace

TEST_CASE("Adam's states become the nearest codes of their blocks, in keys of any sizes", "[state_codecs]") {
  std::vector<std::size_t> sizes{0, 1, 2, 63, 64, 65, 251, 255, 256, 257, 1021, 3001};
  bool const resident = GENERATE(false, true);
  CAPTURE(resident);
  SECTION("blocks of 256") { expect_adam<256, codec::linear, codec::unsigned_float8>(sizes, resident); }
  SECTION("blocks of 64") {
    expect_adam<64, codec::float8, codec::unsigned_linear, codec::unsigned_float4>(sizes, resident);
  }
  SECTION("bitsandbytes' codes") { expect_adam<256, codec::dynamic, codec::unsigned_dynamic>(sizes, resident); }
  SECTION("codes of 4 bits, a task and a bit more") {
    sizes.push_back((std::size_t{1} << 15) + 131);
    expect_adam<128, codec::linear, codec::unsigned_float4>(sizes, resident);
  }
}

TEST_CASE("weights and codes do not depend on the number of devices", "[state_codecs]") {
  std::vector<std::size_t> const sizes{9001, 257, 1, 5000, 64};
  auto const expect_same = [&](auto const& rule, auto const&... policies) {
    auto const expected = trained(1, sizes, rule, policies...);
    for (int const devices : {2, 4, 7}) {
      CAPTURE(devices);
      auto const found = trained(devices, sizes, rule, policies...);
      for (std::size_t k = 0; k < expected.size(); ++k) {
        CAPTURE(k);
        auto const differs = std::ranges::mismatch(found[k], expected[k]).in1 - found[k].begin();
        CHECK(differs == std::ptrdiff_t(expected[k].size()));
      }
    }
  };
  expect_same(update::adam{}, state_codecs<256, codec::linear, codec::of<"exp_avg_sq", codec::unsigned_float8>>{});
  expect_same(update::lamb{}, state_codecs<64, codec::float8, codec::of<"exp_avg_sq", codec::unsigned_float4>>{});
  expect_same(three_states{}, state_codecs<128, codec::of<"fast", codec::float8>, codec::of<"slow", codec::linear>>{});
}

TEST_CASE("a state that no codec claims is stored as it is", "[state_codecs]") {
  std::size_t const size = 1000;
  auto const coded = trained(2, {size}, three_states{}, state_codecs<64, codec::of<"fast", codec::float8>>{});
  auto const plain = trained(2, {size}, three_states{});
  for (std::size_t i = 0; i < size; ++i) CHECK(coded[3][i] == Approx(5.0F));
  CHECK((coded[1] != plain[1]));
  double error = 0, total = 0;
  for (std::size_t i = 0; i < size; ++i) {
    error += std::abs(double{coded[0][i]} - double{plain[0][i]});
    total += std::abs(double{plain[0][i]});
  }
  CHECK(error < 0.05 * total);
}

TEST_CASE("states that were read and set continue bit for bit, on other numbers of devices", "[state_codecs]") {
  using both = state_codecs<256, codec::linear, codec::of<"exp_avg_sq", codec::unsigned_float8>>;
  using of_4_bits = codec::of<"max_exp_avg_sq", codec::unsigned_float4>;
  using others = state_codecs<64, codec::float8, codec::of<"exp_avg_sq", codec::unsigned_linear>, of_4_bits>;
  auto const resume = [](auto const& rule, auto const& policy) {
    std::size_t const size = 4099;
    floats w = random_floats(size, 1), resumed;
    pushpull::kv_store first{pushpull::cpu_devices(3), rule, policy};
    pushpull::kv_store second{pushpull::cpu_devices(2), rule, policy};
    first.init("w", w);
    for (unsigned t = 0; t < 6; ++t) {
      if (t == 3) {
        first.wait();
        resumed = w;
        second.init("w", w);
        for (auto const& name : first.state_names()) {
          second.set_state("w", name, first.state("w", name));
          CHECK((second.state("w", name) == first.state("w", name)));
        }
        second.set_steps("w", 3);
      }
      auto const g = random_floats(size, 50 + t);
      first.pushpull("w", g, w).wait();
      if (t >= 3) second.pushpull("w", g, resumed).wait();
    }
    CHECK((w == resumed));
    for (auto const& name : first.state_names()) CHECK((second.state("w", name) == first.state("w", name)));
  };
  resume(update::adam{}, both{});
  resume(update::amsgrad{}, others{});
  resume(update::adam{}, state_codecs<256, codec::dynamic, codec::of<"exp_avg_sq", codec::unsigned_dynamic>>{});
  resume(update::adam{}, state_codecs<128, codec::linear, codec::of<"exp_avg_sq", codec::unsigned_float4>>{});
}

TEST_CASE("blocks with an infinity are NaN, others and tiny ones are not", "[state_codecs]") {
  auto const check = [](auto const& codecs) {
    pushpull::kv_store store{pushpull::cpu_devices(1), update::adam{}, codecs};
    floats w(256, 1.0F), g(256, 0.5F);
    g[3] = std::numeric_limits<float>::infinity();
    for (std::size_t i = 64; i < 128; ++i) g[i] = i % 2 == 0 ? 1e-22F : 0;
    g[130] = std::numeric_limits<float>::quiet_NaN();
    for (std::size_t i = 192; i < 256; ++i) g[i] = 0;
    store.init("w", w);
    store.push("w", g).wait();
    for (char const* const name : {"exp_avg", "exp_avg_sq"}) {
      auto const state = store.state("w", name);
      for (std::size_t i = 0; i < 256; ++i) {
        CAPTURE(name, i, state[i]);
        CHECK(std::isnan(state[i]) == (i / 64 == 0 || i / 64 == 2));
        if (i / 64 == 3) CHECK(std::fpclassify(state[i]) == FP_ZERO);
        if (i / 64 == 1) CHECK(std::abs(state[i]) < 1e-22F);
      }
    }
    store.assign("w", w, pushpull::rule_states::reset);
    for (float const x : store.state("w", "exp_avg")) CHECK(std::fpclassify(x) == FP_ZERO);
    g.assign(256, 1.0F);
    store.push("w", g).wait();
    for (float const x : store.state("w", "exp_avg")) CHECK(x == Approx(0.1F).epsilon(0.01));
  };
  check(state_codecs<64, codec::linear, codec::of<"exp_avg_sq", codec::unsigned_float8>>{});
  check(state_codecs<64, codec::dynamic, codec::of<"exp_avg_sq", codec::unsigned_float4>>{});
}

TEST_CASE("codecs that add bits take negative states for 0, whoever sets them", "[state_codecs]") {
  auto const check = [](auto const& policy) {
    pushpull::kv_store store{pushpull::cpu_devices(1), update::momentum{.learning_rate = 0, .momentum = 0}, policy};
    floats g = random_floats(1000, 7), clamped;
    for (float& x : g) x = std::clamp(x, -1.0F, 1.0F);
    for (std::size_t i = 0; i < g.size(); i += 64) g[i] = 2;  // the greatest of its block
    g[1] = -0.0F;
    std::ranges::transform(g, std::back_inserter(clamped), [](float x) { return x > 0 ? x : 0; });
    auto const states_of = [&](floats const& gradient, bool set) {
      std::string const key = std::to_string(store.keys().size());
      store.init(key, floats(gradient.size()));
      if (set) {
        store.set_state(key, "momentum_buffer", gradient);
      } else {
        store.push(key, gradient).wait();
      }
      return store.state(key, "momentum_buffer");
    };
    CHECK((states_of(g, true) == states_of(clamped, true)));
    floats const pushed = states_of(g, false);
    for (std::size_t i = 0; i < g.size(); ++i) {
      CAPTURE(i, g[i], pushed[i]);
      REQUIRE(pushed[i] > 0.0F);
      REQUIRE(pushed[i] <= std::max(1.51F * clamped[i], 2.0F / 128));
    }
  };
  check(state_codecs<64, codec::unsigned_float8>{});
  check(state_codecs<64, codec::unsigned_float4>{});
}

TEST_CASE("unsigned_float8 rounds at random, with the exact value as the mean", "[state_codecs]") {
  pushpull::kv_store store{pushpull::cpu_devices(1), update::adam{.beta2 = 0.999},
                           state_codecs<256, codec::of<"exp_avg_sq", codec::unsigned_float8>>{}};
  std::size_t const size = 64 * 256;
  store.init("w", floats(size));
  floats const g(size, 1.0F);
  for (int t = 0; t < 100; ++t) store.push("w", g).wait();
  double total = 0;
  auto const v = store.state("w", "exp_avg_sq");
  for (float const x : v) total += double{x};
  CHECK(total / double(size) == Approx(1 - std::pow(0.999, 100)).epsilon(0.01));
  CHECK((*std::ranges::max_element(v) > 1.05F * *std::ranges::min_element(v)));
}

TEST_CASE("second moments are rounded at random, with the exact value as the mean, and none becomes 0",
          "[state_codecs]") {
  auto const expect_mean = [](auto const& rule, auto const& policy, double tolerance, bool keeps_zero) {
    pushpull::kv_store store{pushpull::cpu_devices(1), rule, policy};
    floats g(std::size_t{300} * 128), v(g.size());
    for (std::size_t i = 0; i < g.size(); ++i) {
      v[i] = i % 64 == 0 ? 1.0F : 0;
      g[i] = i % 64 == 0 ? 1.0F : std::sqrt(0.2F * float(i % 64 % 10));  // states of 0.1 to 0.9
      if (i % 64 == 20) g[i] = 1e-5F;                                    // far below the least value
    }
    store.init("w", g);
    store.set_state("w", "exp_avg_sq", v);
    auto const before = store.state("w", "exp_avg_sq");
    store.push("w", g).wait();
    auto const after = store.state("w", store.state_names().back());
    for (std::size_t k = 0; k < 10; ++k) {
      double sum = 0, exact = 0;
      for (std::size_t i = 0; i < g.size(); ++i) {
        if (i % 64 == 0 || i % 64 % 10 != k) continue;
        if (!keeps_zero || i % 64 == 20) REQUIRE(after[i] > 0.0F);
        sum += double{after[i]};
        exact += 0.5 * double{before[i]} + 0.5 * double{g[i]} * double{g[i]};
      }
      CAPTURE(k);
      if (k > 0) CHECK(sum == Approx(exact).epsilon(tolerance));
    }
  };
  expect_mean(update::adam{.beta2 = 0.5},
              state_codecs<128, codec::linear, codec::of<"exp_avg_sq", codec::unsigned_float4>>{}, 0.02, false);
  expect_mean(update::amsgrad{.beta2 = 0.5},
              state_codecs<64, codec::float8, codec::of<"exp_avg_sq", codec::unsigned_linear>,
                           codec::of<"max_exp_avg_sq", codec::unsigned_float4>>{},
              0.02, false);
  expect_mean(update::adam{.beta2 = 0.5}, state_codecs<256, codec::of<"exp_avg_sq", codec::unsigned_dynamic>>{}, 0.002,
              true);
}

TEST_CASE("the momentum of an element without gradients decays to 0, and its weight stays", "[state_codecs]") {
  update::adam const rule{.learning_rate = 0.01};
  pushpull::kv_store coded{pushpull::cpu_devices(1), rule,
                           state_codecs<256, codec::linear, codec::of<"exp_avg_sq", codec::unsigned_float8>>{}};
  pushpull::kv_store plain{pushpull::cpu_devices(1), rule};
  floats gradient(256, 1.0F), weight(256), expected(256);
  coded.init("w", weight);
  plain.init("w", weight);
  for (int t = 0; t < 3000; ++t) {
    if (t == 100) std::fill_n(gradient.begin() + 128, 128, 0.0F);  // the others keep the unit of the block
    coded.pushpull("w", gradient, weight).wait();
    plain.pushpull("w", gradient, expected).wait();
  }
  auto const momentum = coded.state("w", "exp_avg");
  double moved[2] = {}, exact[2] = {};
  for (std::size_t i = 0; i < 256; ++i) {
    REQUIRE(momentum[i] == (i < 128 ? Approx(1).epsilon(0.02) : Approx(0).margin(1e-9)));
    REQUIRE(weight[i] == Approx(expected[i]).epsilon(0.25));  // the second moments' noise is of hundreds of steps
    moved[i / 128] += weight[i];
    exact[i / 128] += expected[i];
  }
  for (std::size_t k = 0; k < 2; ++k) REQUIRE(moved[k] == Approx(exact[k]).epsilon(0.04));
}

TEST_CASE("linear rounds at random, with the exact value as the mean, and a codec may be none", "[state_codecs]") {
  pushpull::kv_store store{pushpull::cpu_devices(1), update::momentum{.learning_rate = 0, .momentum = 0.5},
                           state_codecs<256, codec::linear>{}};
  floats const values(100 * 256, 0.01F);
  store.init("w", values);
  floats state(values);
  for (std::size_t i = 0; i < state.size(); i += 256) state[i] = 2;
  floats gradient(state.size());
  store.set_state("w", "momentum_buffer", state);
  for (std::size_t i = 0; i < state.size(); i += 256) gradient[i] = 1;  // 2 again
  auto const before = store.state("w", "momentum_buffer");
  store.push("w", gradient).wait();
  double sum = 0, exact = 0;
  auto const after = store.state("w", "momentum_buffer");
  for (std::size_t i = 0; i < after.size(); ++i) {
    if (i % 256 == 0) continue;
    sum += after[i];
    exact += 0.5 * before[i];
  }
  REQUIRE(sum == Approx(exact).epsilon(0.03));
  pushpull::kv_store kept{pushpull::cpu_devices(1), update::adam{} | update::ema(0.9),
                          state_codecs<256, codec::linear, codec::of<"ema", codec::none>>{}};
  kept.init("w", values);
  kept.swap("ema");
}

TEST_CASE("a skipped step leaves codes alone", "[state_codecs]") {
  pushpull::kv_store store{pushpull::cpu_devices(2), update::dynamic_loss_scale{1} | update::adam{},
                           state_codecs<64, codec::linear>{}};
  floats w = random_floats(300, 1), g = random_floats(300, 2);
  store.init("w", w);
  store.push("w", g).wait();
  auto const before = store.state("w", "exp_avg");
  g[7] = std::numeric_limits<float>::infinity();
  store.push("w", g).wait();
  CHECK((store.state("w", "exp_avg") == before));
}

TEST_CASE("rows of whole blocks update codes, other rows are refused; weights are not swapped for codes",
          "[state_codecs][errors]") {
  using policy = state_codecs<64, codec::of<"exp_avg", codec::linear>, codec::of<"exp_avg_sq", codec::unsigned_linear>>;
  pushpull::kv_store store{pushpull::cpu_devices(2), update::adam{} | update::ema(0.5), policy{}};
  pushpull::kv_store dense{pushpull::cpu_devices(1), update::adam{} | update::ema(0.5), policy{}};
  floats const w = random_floats(std::size_t{40} * 128, 3), g = random_floats(std::size_t{3} * 128, 4);
  store.init("table", pushpull::tensor_view(w.data(), pushpull::shape{40, 128}));
  std::vector<std::int64_t> const ids{0, 17, 39};
  store.push("table", pushpull::row_sparse_view<float const>(g.data(), ids.data(), 3, pushpull::shape{40, 128})).wait();
  auto const state = store.state("table", "exp_avg_sq");
  for (std::size_t k = 0; k < 3; ++k) {
    auto const row = static_cast<std::size_t>(ids[k]);
    std::string const key = std::to_string(k);
    dense.init(key, floats(w.begin() + std::ptrdiff_t(row * 128), w.begin() + std::ptrdiff_t(row * 128 + 128)));
    floats const own(g.begin() + std::ptrdiff_t(k * 128), g.begin() + std::ptrdiff_t(k * 128 + 128));
    dense.push(key, own).wait();
    auto const expected = dense.state(key, "exp_avg_sq");
    CHECK(std::equal(expected.begin(), expected.end(), state.begin() + std::ptrdiff_t(row * 128)));
  }
  CHECK(std::all_of(state.begin() + 128, state.begin() + 17 * 128,
                    [](float x) { return std::fpclassify(x) == FP_ZERO; }));

  store.init("odd", pushpull::tensor_view(w.data(), pushpull::shape{40, 100}));
  floats const odd(300, 1.0F);
  CHECK_THROWS_WITH(
      store.push("odd", pushpull::row_sparse_view<float const>(odd.data(), ids.data(), 3, pushpull::shape{40, 100})),
      Catch::Contains("rows of whole blocks of 64 states expected"));
  CHECK_THROWS_WITH(store.swap("exp_avg"), Catch::Contains("stored as codes"));
  store.swap("table", "ema");
  store.swap("table", "ema");
}

TEST_CASE("two states of codes take 2.03 bytes per element", "[state_codecs]") {
  std::int64_t const size = std::int64_t{1} << 16;
  pushpull::kv_store store{pushpull::cpu_devices(1), update::adam{}, state_codecs<256, codec::linear>{}};
  store.init("w", floats(static_cast<std::size_t>(size)));
  CHECK(store.memory_report().devices[0].states == static_cast<std::size_t>(2 * (size + size / 256 * 4)));
  using types = pushpull::pass::element_types<float, float, float,
                                              pushpull::detail::coded_states<256, codec::linear, codec::linear>, float>;
  CHECK(pushpull::pass::stored_bytes<update::adam, types, 2>(size) == 12 * size + size / 16);
  using narrow = pushpull::detail::coded_states<128, codec::linear, codec::unsigned_float4>;
  using narrow_types = pushpull::pass::element_types<float, float, float, narrow, float>;
  CHECK(pushpull::pass::stored_bytes<update::adam, narrow_types, 2>(size) == 11 * size + size / 8);
}
