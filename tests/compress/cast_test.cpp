/// @file
/// Casts against a rounding in double that is written from the formats' definitions.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <pushpull/pushpull.hpp>
#include <random>
#include <vector>

#include "compress/compare_stores.hpp"
#include "support/catch.hpp"
#include "support/counting_device.hpp"
#include "support/sanitized.hpp"

namespace {

namespace pp = pushpull;
namespace compress = pushpull::compress;
namespace update = pushpull::update;
constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

/// Significant bits, the exponent of the least normal value, the largest value. Eight bits have a scale.
struct format {
  int bits, least_exponent;
  double largest;
  bool is_scaled;
};
template <class E>
constexpr format format_of{};
template <>
constexpr format format_of<pp::half>{11, -14, 65504, false};
template <>
constexpr format format_of<pp::bfloat16>{8, -126, 0x1.FEp127, false};
template <>
constexpr format format_of<pp::float8_e4m3>{4, -6, 448, true};
template <>
constexpr format format_of<pp::float8_e5m2>{3, -14, 57344, true};

/// One source.
struct model {
  format f;
  bool error_feedback;
  std::vector<float> residual = {};

  double rounded(double x) const {
    if (x == 0 || std::isnan(x)) return x;
    int exponent = 0;
    std::frexp(x, &exponent);
    double const unit = std::ldexp(1.0, std::max(exponent - 1, f.least_exponent) - f.bits + 1);
    double const y = std::nearbyint(x / unit) * unit;
    if (std::abs(y) <= f.largest) return y;
    return std::copysign(f.is_scaled ? f.largest : double{infinity}, y);
  }
  double scale(std::vector<float> const& sum) const {
    double largest = 0;
    for (float const x : sum)
      if (std::isfinite(x)) largest = std::max(largest, std::abs(double{x}));
    if (!f.is_scaled || largest == 0) return 1;
    double s = 0x1p-126;
    while (s * f.largest < largest) s *= 2;
    return s;
  }
  std::vector<float> push(std::vector<float> gradient) {
    residual.resize(gradient.size());
    if (error_feedback)
      for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] += residual[i];
    double const s = scale(gradient);
    std::vector<float> decoded;
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      float const x = gradient[i];
      decoded.push_back(f.is_scaled && !std::isfinite(x) ? not_a_number : static_cast<float>(rounded(x / s) * s));
      float const rest = x - decoded.back();
      residual[i] = std::isfinite(rest) ? rest : 0.0F;
    }
    return decoded;
  }
};

float decoded(pp::half const* from, std::size_t i) { return pp::convert<float>(from[i]); }
float decoded(pp::bfloat16 const* from, std::size_t i) { return pp::convert<float>(from[i]); }
template <class Source>
float decoded(Source const& from, std::size_t i) {
  return pp::convert<float>(from.elements[i]) * *from.scale;
}

template <class E, class T>
void compare_source(std::vector<float> const& gradient, bool error_feedback) {
  INFO(pp::dtype_traits<E>::name << " from " << pp::dtype_traits<T>::name << ", " << gradient.size() << " elements");
  pp::test::one_source<compress::cast<E>, T> source({error_feedback}, gradient.size());
  model reference{format_of<E>, error_feedback};
  std::vector<T> given;
  for (float const x : gradient) given.push_back(pp::convert<T>(x));
  for (int t = 0; t < 3; ++t) {
    auto const expected = reference.push(pp::test::floats(given));
    auto const codes = source.push(given);
    for (std::size_t i = 0; i < given.size(); ++i) {
      INFO("element " << i << ": " << gradient[i]);
      if (std::isnan(expected[i])) {
        REQUIRE(std::isnan(decoded(codes, i)));
      } else {
        REQUIRE(decoded(codes, i) == expected[i]);
      }
      if (error_feedback) REQUIRE(source.residual[i] == reference.residual[i]);
    }
    if (error_feedback)
      for (std::size_t i = given.size(); i < source.residual.size(); ++i) REQUIRE(source.residual[i] == 0);
  }
}

template <class E>
void compare_sources(std::vector<float> const& gradient) {
  for (bool const error_feedback : {false, true}) {
    compare_source<E, float>(gradient, error_feedback);
    if constexpr (sizeof(E) == 1) {
      compare_source<E, pp::half>(gradient, error_feedback);
      compare_source<E, pp::bfloat16>(gradient, error_feedback);
    }
  }
}

void compare_all(std::vector<float> const& gradient) {
  compare_sources<pp::half>(gradient);
  compare_sources<pp::bfloat16>(gradient);
  compare_sources<pp::float8_e4m3>(gradient);
  compare_sources<pp::float8_e5m2>(gradient);
}

template <class E, class T, class Rule>
void train(Rule const& rule, std::size_t size, std::size_t sources, bool error_feedback) {
  model const reference{format_of<E>, error_feedback};
  for (int const devices : {1, 2, 3})
    pp::test::compare_stores<T>(pp::cpu_devices(devices), rule, compress::cast<E>{error_feedback}, reference, size,
                                sources);
}

}  // namespace

TEST_CASE("casts round to nearest, with a scale where they have 8 bits", "[compress]") {
  std::mt19937 random(7);
  for (std::size_t const size : std::vector<std::size_t>{0, 1, 63, 64, 65, 1023, 5003, 70001})
    compare_all(pp::test::random_gradient<float>(random, size));
  for (float const largest : {1.0F, 1.75F, 1.7500001F, 448.0F, 449.0F, 3e38F, 1e-30F, 1e-37F, 1e-44F, 0.0F})
    compare_all({0.3F * largest, largest, -0.001F * largest, -largest, 0.0F, 1e-8F * largest, -0.0F});
}

TEST_CASE("a cast shows what is not finite and does not keep it", "[compress]") {
  for (float const odd : {infinity, -infinity, not_a_number}) {
    std::vector<float> gradient(130, 0.37F);
    gradient[7] = odd;
    gradient[129] = -3;
    compare_all(gradient);
    compare_all({odd});
  }
}

TEST_CASE("the scale of 448 in E4M3 is 1 and that of 449 is 2", "[compress]") {
  pp::test::one_source<compress::cast<pp::float8_e4m3>, float> source({}, 2);
  REQUIRE(*source.push({-448, 17}).scale == 1);
  REQUIRE(*source.push({-449, 17}).scale == 2);
  REQUIRE(*source.push({0.4375F, 0}).scale == 0x1p-10F);
  REQUIRE(*source.push({0, 0}).scale == 1);
  pp::test::one_source<compress::cast<pp::float8_e5m2>, float> wide({}, 1);
  REQUIRE(*wide.push({57345}).scale == 2);
  REQUIRE(*wide.push({1e-42F}).scale == 0x1p-126F);
}

TEST_CASE("with error feedback nothing is lost", "[compress]") {
  std::mt19937 random(3);
  std::vector<float> gradient(1023);
  pp::test::one_source<compress::cast<pp::float8_e5m2>, float> source({true}, gradient.size());
  std::vector<double> given(gradient.size()), seen(gradient.size());
  for (int t = 0; t < 20; ++t) {
    for (std::size_t i = 0; i < gradient.size(); ++i)  // few bits: float adds them exactly
      given[i] += double{gradient[i] = static_cast<float>(static_cast<int>(random() % 513) - 256) / 16};
    auto const codes = source.push(gradient);
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      seen[i] += double{decoded(codes, i)};
      REQUIRE(seen[i] + double{source.residual[i]} == given[i]);
    }
  }
}

TEST_CASE("stores train on what casts let through, on any number of devices", "[compress]") {
  for (std::size_t const size : std::vector<std::size_t>{0, 1, 63, 65, 5003}) {
    std::size_t const sources = 1 + size % 5;
    train<pp::half, float>(pp::no_updater{}, size, sources, false);
    train<pp::float8_e4m3, pp::bfloat16>(update::clip_global_norm(3) | update::sgd{.learning_rate = 0.5}, size, sources,
                                         true);
#if !PUSHPULL_TEST_SANITIZED
    train<pp::bfloat16, float>(update::momentum{}, size, sources, true);
    train<pp::float8_e4m3, float>(update::adam{}, size, sources, false);
    train<pp::float8_e5m2, pp::half>(update::momentum{}, size, sources, false);
#endif
  }
#if !PUSHPULL_TEST_SANITIZED
  for (std::size_t const sources : std::vector<std::size_t>{1, 2, 3, 4, 5, 11}) {
    train<pp::float8_e5m2, float>(update::sgd{}, 1023, sources, true);
    train<pp::half, float>(update::clip_global_norm(3) | update::sgd{.learning_rate = 0.5}, 1023, sources, false);
  }
#endif
}

TEST_CASE("casts reach devices that reach no other's memory, and keep no tail beyond the gradient", "[compress]") {
  using device = pp::test::counting_device;
  std::vector const devices{device(0, true), device(1, true), device(2, true)};
  for (std::size_t const size : std::vector<std::size_t>{1, 65, 5003}) {
    pp::test::compare_stores<float>(devices, update::momentum{}, compress::cast<pp::float8_e4m3>{true},
                                    model{format_of<pp::float8_e4m3>, true}, size, 3);
    pp::test::compare_stores<float>(devices, update::momentum{}, compress::cast<pp::bfloat16>{},
                                    model{format_of<pp::bfloat16>, false}, size, 3);
  }
}
