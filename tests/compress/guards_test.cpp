/// @file
/// Compressed gradients that are not finite: guards see them, and a step that is left out takes nothing from residuals.
#include <cmath>
#include <limits>
#include <pushpull/pushpull.hpp>
#include <string>
#include <vector>

#include "compress/compare_stores.hpp"
#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace compress = pushpull::compress;
namespace update = pushpull::update;
using pp::test::same_bits;
using vector = std::vector<float>;
using device = pp::cpu_device<pp::serial_system>;

constexpr float not_finite[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                                -std::numeric_limits<float>::infinity()};
constexpr std::size_t size = 1000;

using rule = decltype(update::apply_if_finite{} | update::sgd{});
template <class Compressor>
using guarded = pp::kv_store<float, device, rule, Compressor, pp::accumulate, pp::synchronous>;

vector gradient(int t, std::size_t source) {
  vector g(size);
  for (std::size_t i = 0; i < size; ++i)
    g[i] = 0.4F * std::sin(0.1F * static_cast<float>(i * (source + 1)) + static_cast<float>(t));
  return g;
}
std::vector<vector> gradients(int t) { return {gradient(t, 0), gradient(t, 1)}; }
std::vector<vector> bad_gradients(int t) {
  auto bad = gradients(t);
  bad[1][777] = not_finite[t % 3];
  return bad;
}

template <class Store>
vector weights(Store& store) {
  vector w(size);
  store.pull("w", w).wait();
  return w;
}

template <class Compressor>
guarded<Compressor> store_of(int devices, Compressor const& compressor, std::int64_t micro_batches,
                             std::int64_t in_a_row = 100) {
  return {pp::cpu_devices<pp::serial_system>(devices), update::apply_if_finite{in_a_row} | update::sgd{0.5}, compressor,
          pp::accumulate{micro_batches}};
}

template <class Compressor>
void leaves_residuals(Compressor const& compressor) {
  for (int const devices : {1, 3}) {
    INFO(devices << " devices");
    auto store = store_of(devices, compressor, 1), clean = store_of(devices, compressor, 1);
    for (auto* s : {&store, &clean}) s->init("w", vector(size, 1));
    for (int t = 0; t < 6; ++t) {
      store.push("w", bad_gradients(t)).wait();
      REQUIRE(store.steps("w") == t);
      for (auto* s : {&store, &clean}) s->push("w", gradients(t)).wait();
      REQUIRE(store.steps("w") == t + 1);
      REQUIRE(same_bits(weights(store), weights(clean)));
    }
  }
}

}  // namespace

TEST_CASE("a guard sees through every compressor, and a step that is left out leaves residuals as they were",
          "[compress][loss_scale]") {
  SECTION("two_bit") { leaves_residuals(compress::two_bit{0.5F}); }
  SECTION("one_bit") { leaves_residuals(compress::one_bit{}); }
  SECTION("cast") { leaves_residuals(compress::cast<pp::bfloat16>{true}); }
  SECTION("top_k") { leaves_residuals(compress::top_k{.count = 10}); }
}

TEST_CASE("a window of micro-batches that is left out gives back what its first one took", "[compress][loss_scale]") {
  auto store = store_of(2, compress::two_bit{0.5F}, 3), clean = store_of(2, compress::two_bit{0.5F}, 3);
  for (auto* s : {&store, &clean}) s->init("w", vector(size, 1));
  for (int t = 0; t < 4; ++t) {
    for (int batch = 0; batch < 3; ++batch) store.push("w", batch == t % 3 ? bad_gradients(t) : gradients(t)).wait();
    REQUIRE(store.steps("w") == t);
    for (int batch = 0; batch < 3; ++batch)
      for (auto* s : {&store, &clean}) s->push("w", gradients(t + batch)).wait();
    REQUIRE(store.steps("w") == t + 1);
    REQUIRE(same_bits(weights(store), weights(clean)));
  }
}

TEST_CASE("without a guard weights show what was not finite, and residuals do not keep it", "[compress]") {
  auto store = store_of(2, compress::two_bit{0.5F}, 1, 0);
  store.init("w", vector(size, 1));
  store.push("w", bad_gradients(0)).wait();
  for (float const w : weights(store)) REQUIRE(std::isnan(w));
  for (float const bad : not_finite) {
    pp::test::one_source<compress::two_bit, float> source({0.5F}, 70);
    vector g(70, 0.4F);
    g[3] = bad;
    REQUIRE(std::isnan(*source.push(g).flaw));
    REQUIRE(source.residual[3] == 0);
    REQUIRE(source.residual[4] == 0.4F);
    g[3] = 0.4F;
    REQUIRE(*source.push(g).flaw == 0);
    REQUIRE(source.residual[3] == 0.4F);
  }
}
