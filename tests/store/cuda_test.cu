/// @file
/// Stores on GPUs against the same stores on CPUs. Without a GPU and without the emulator every case
/// reports that it was skipped.
#include <pushpull/pushpull.cuh>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/cuda_devices.cuh"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using pp::test::logical_devices;

std::vector<std::vector<float>> pushed(auto const& devices, auto const& updater, std::size_t sources) {
  pp::kv_store store{devices, updater};
  std::vector<std::string> const keys{"a", "b", "c"};
  std::vector<std::vector<float>> values;
  std::vector<std::vector<std::vector<float>>> gradients;
  for (std::size_t const size : {1, 4099, 9001}) {
    values.emplace_back(size, 1.0F);
    gradients.emplace_back(sources, std::vector<float>(size));
    for (std::size_t k = 0; k < sources; ++k)
      for (std::size_t i = 0; i < size; ++i) gradients.back()[k][i] = static_cast<float>((i * 31 + k * 7) % 17) / 8 - 1;
  }
  store.init(keys, values);
  for (int t = 0; t < 4; ++t) store.pushpull(keys, gradients, values);
  store.wait();
  for (std::size_t k = 0; k < keys.size(); ++k) {
    std::vector<float> stored(values[k].size());
    store.pull(keys[k], stored);
    store.wait();
    REQUIRE(stored == values[k]);
  }
  return values;
}

void require_close(std::vector<std::vector<float>> const& a, std::vector<std::vector<float>> const& b) {
  for (std::size_t k = 0; k < a.size(); ++k)
    for (std::size_t i = 0; i < a[k].size(); ++i)
      if (!(std::abs(a[k][i] - b[k][i]) <= 2e-6F))
        FAIL("key " << k << ", element " << i << ": " << a[k][i] << " " << b[k][i]);
}

/// Weights of 2,100 keys, of which most are small, after two steps.
std::vector<std::vector<float>> many_pushed(auto const& devices) {
  pp::kv_store store{devices, update::momentum{.learning_rate = 0.25}, pp::integer_keys{}};
  std::vector<std::int64_t> keys;
  std::vector<std::vector<float>> values, gradients;
  for (std::int64_t k = 0; k < 2100; ++k) {
    keys.push_back(k);
    std::size_t const size = k % 500 == 0 ? 3001 : k % 7 == 0 ? 0 : static_cast<std::size_t>(k * 31 % 97);
    values.emplace_back(size, static_cast<float>(k % 16));
    auto& gradient = gradients.emplace_back(size);
    for (std::size_t i = 0; i < size; ++i) gradient[i] = static_cast<float>((static_cast<std::size_t>(k) + i) % 8);
  }
  store.init(keys, values);
  for (int t = 0; t < 2; ++t) store.pushpull(keys, gradients, values);
  store.wait();
  return values;
}

/// A user's rule that branches, as GPUs can.
struct branching_rule {
  static constexpr auto state_names = pp::states();
  template <class S, class V>
  PUSHPULL_HOST_DEVICE void operator()(S const&, V& w, V g) const noexcept {
    if (g > 0) w -= 0.5 * g;
  }
};

std::vector<pp::half> gradient_on_host(std::size_t size) {
  return std::vector<pp::half>(size, pp::convert<pp::half>(1.0F));
}

}  // namespace

TEST_CASE("rules on CUDA devices equal those on CPU devices", "[cuda]") {
  auto const devices = logical_devices();
  if (devices.empty()) return;
  auto const adam = update::clip_global_norm(3) | update::adam{.learning_rate = 0.1, .epsilon = 1e-3};
  for (std::size_t const sources : {1, 3, 11}) {
    require_close(pushed(devices, adam, sources), pushed(pp::cpu_devices(2), adam, sources));
    REQUIRE(pushed(devices, adam, sources) == pushed(std::vector{devices[0]}, adam, sources));
  }
}

TEST_CASE("thousands of keys in one call on CUDA devices equal those on CPU devices", "[cuda]") {
  auto const devices = logical_devices();
  if (devices.empty()) return;
  auto const expected = many_pushed(pp::cpu_devices(1));
  REQUIRE(many_pushed(devices) == expected);
  REQUIRE(many_pushed(std::vector{devices[0]}) == expected);
}

TEST_CASE("scheduled hyperparameters on CUDA devices equal those on CPU devices", "[cuda]") {
  namespace lr = pp::lr_schedule;
  auto const devices = logical_devices();
  if (devices.empty()) return;
  auto const rate = lr::warm_up{lr::multi_step_decay{.base = 0.1, .milestones = {1, 2}}, 1, 0.05} *
                    lr::join{lr::cosine{.base = 1, .updates = 3}, 2, lr::one_cycle{.peak = 2, .updates = 9}};
  auto const rule =
      update::weight_decay(0.01) | update::momentum{} | update::learning_rate(rate) |
      update::hyperparameter<&update::momentum::momentum>(lr::cyclical{.base = 0.9, .peak = 0.8, .up = 2});
  require_close(pushed(devices, rule, 3), pushed(pp::cpu_devices(2), rule, 3));
  REQUIRE(pushed(devices, rule, 3) == pushed(std::vector{devices[0]}, rule, 3));
}

TEST_CASE("parameter_store trains on CUDA devices, and on all GPUs", "[cuda]") {
  auto const logical = logical_devices();
  if (logical.empty()) return;
  for (auto const& devices : {logical, pp::cuda_devices()}) {
    pp::kv_store<pp::bfloat16, pp::cuda_device, update::sgd, pp::element::master<float>> store{devices,
                                                                                               update::sgd{1.0}};
    pp::parameter_store parameters{store};
    std::vector<pp::bfloat16> const weight(3001, pp::convert<pp::bfloat16>(2.0F));
    parameters.add("w", weight);
    for (std::size_t n = 0; n < devices.size(); ++n) pp::copy(weight, parameters.grad("w", n));
    parameters.update_all();
    for (std::size_t n = 0; n < devices.size(); ++n) {
      auto const mirror = pp::to_vector(parameters.value("w", n));
      for (auto const x : mirror) REQUIRE(pp::convert<float>(x) == 2.0F - 2.0F * static_cast<float>(devices.size()));
    }
  }
}

TEST_CASE("a CUDA device runs every index once, sums leaves in a fixed order and refuses what does not exist",
          "[cuda]") {
  auto const devices = logical_devices();
  if (devices.empty()) return;
  REQUIRE_THROWS_AS(pp::cuda_device(4711), pp::invalid_argument);
  REQUIRE(devices[0] == devices[0]);
  REQUIRE_FALSE(devices[0] == devices[1]);
  std::vector<float> const from(1000, 3.0F);
  pp::tensor<float, pp::cuda_device> x(devices[0], pp::shape{1000});
  REQUIRE(pp::to_vector(x) == std::vector<float>(1000));
  pp::copy(from, x);
  pp::tensor<double, pp::cuda_device> y(devices[1], pp::shape{1000});
  pp::copy(x, y);
  REQUIRE(pp::to_vector(y) == std::vector<double>(1000, 3.0));
}

TEST_CASE("16-bit gradients, thrust vectors and users' rules work on CUDA devices", "[cuda]") {
  auto const devices = logical_devices();
  if (devices.empty()) return;
  pp::kv_store<pp::half, pp::cuda_device, branching_rule, pp::element::master<float>, pp::integer_keys> store{
      devices, branching_rule{}};
  std::vector<pp::half> const three(3), host_gradient = gradient_on_host(777);
  thrust::device_vector<float> initial(777, 1.0F);
  thrust::device_vector<pp::half> const gradient(777, pp::convert<pp::half>(0.25F));
  devices[1].synchronize();
  store.init(1, pp::view_of(initial, devices[1]));
  store.push(1, std::vector(20, pp::view_of(gradient, devices[1])));
  std::vector<double> out(777);
  store.pull(1, out);
  store.wait();
  REQUIRE(out == std::vector<double>(777, 1.0 - 0.5 * 20 * 0.25));
  REQUIRE(store.steps(1) == 1);
  REQUIRE_THROWS_AS(store.push(1, three), pp::shape_mismatch);
  REQUIRE_THROWS_AS(store.push(2, three), pp::unknown_key);
  store.push(1, host_gradient);
  store.pull(1, out);
  store.wait();
  REQUIRE(out[776] == 1.0 - 2.5 - 0.5);
}

TEST_CASE("compressed gradients on CUDA devices equal those on CPU devices", "[cuda]") {
  auto const devices = logical_devices();
  if (devices.empty()) return;
  auto const compressed = [](auto const& where, auto const& compressor) {
    pp::kv_store store{where, update::sgd{1.0}, compressor};  // of multiples of 1/8: exact
    std::vector<float> w(5003, 1.0F);
    store.init("w", w);
    for (int t = 0; t < 5; ++t) {
      std::vector<std::vector<float>> gradients(3, std::vector<float>(5003));
      for (std::size_t k = 0; k < 3; ++k)
        for (std::size_t i = 0; i < 5003; ++i) gradients[k][i] = static_cast<float>((i * 31 + k * 7) % 17) / 8 - 1;
      store.pushpull("w", gradients, w);
      store.wait();
    }
    return w;
  };
  REQUIRE(compressed(devices, pp::compress::two_bit{}) == compressed(pp::cpu_devices(1), pp::compress::two_bit{}));
  REQUIRE(compressed(devices, pp::compress::one_bit{}) == compressed(pp::cpu_devices(1), pp::compress::one_bit{}));
  auto const compare = [&](auto const& compressor) {
    REQUIRE(compressed(devices, compressor) == compressed(pp::cpu_devices(1), compressor));
    REQUIRE(compressed(std::vector{devices[0]}, compressor) == compressed(devices, compressor));
  };
  for (bool const error_feedback : {false, true}) {  // pass/float8_test.cu converts to e5m2
    compare(pp::compress::cast<pp::half>{error_feedback});
    compare(pp::compress::cast<pp::bfloat16>{error_feedback});
    compare(pp::compress::cast<pp::float8_e4m3>{error_feedback});
  }
  for (double const ratio : {0.001, 0.1, 1.0}) compare(pp::compress::top_k{.ratio = ratio});
}

// Pulls of rows need devices that reach one another, and are refused where they do not.
TEST_CASE("row-sparse gradients and pulls of rows on CUDA devices equal those on CPU devices", "[cuda]") {
  auto const devices = logical_devices();
  if (devices.empty()) return;
  auto const trained = [](auto const& where, std::int64_t length, pp::row_updates which) {
    using device = std::remove_cvref_t<decltype(where[0])>;
    pp::shape const whole{701, length};
    pp::kv_store store{where, update::momentum{.learning_rate = 0.5}};
    std::vector<float> const initial(whole.size(), 1.0F);
    store.init("w", pp::tensor_view(initial.data(), whole));
    std::vector<std::int64_t> ids, wanted;
    for (std::int64_t i = 0; i < 500; ++i) ids.push_back(i * i * 7 % 701);
    for (std::int64_t i = 0; i < 120; ++i) wanted.push_back((120 - i) * 5 % 701);
    std::vector<float> values(ids.size() * static_cast<std::size_t>(length));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i * 31 % 17) / 8 - 1;
    auto const count = static_cast<std::int64_t>(ids.size());
    pp::row_sparse_view const on_host(values.data(), ids.data(), count, whole);
    pp::row_sparse<float, device> there(where.back(), whole, count), rows(where[0], whole);
    pp::copy(ids, pp::tensor_view(there.row_ids(), pp::shape{count}, where.back()));
    pp::copy(values, pp::tensor_view(there.values(), pp::shape{count * length}, where.back()));
    pp::row_sparse_view<float const, device> const view = std::as_const(there);
    std::vector const both{view, view};
    store.init("v", view);
    for (int t = 0; t < 3; ++t) {
      store.push("w", both, which);
      store.push("w", on_host, which);
    }
    std::vector<float> all(whole.size()), of_rows(whole.size());
    store.pull("w", pp::tensor_view(all.data(), whole));
    store.pull("v", pp::tensor_view(of_rows.data(), whole));
    store.wait();
    all.insert(all.end(), of_rows.begin(), of_rows.end());
    if (!std::ranges::all_of(where, [&](device const& owner) { return owner.can_access(where[0]); })) {
      REQUIRE_THROWS_AS(store.row_sparse_pull("w", rows, wanted), pp::unknown_device);
      return all;
    }
    store.row_sparse_pull("w", rows, wanted);
    store.wait();
    auto const found = pp::to_vector(pp::tensor_view(rows.row_ids(), pp::shape{rows.rows()}, where[0]));
    auto const pulled = pp::to_vector(pp::tensor_view(rows.values(), pp::shape{rows.rows() * length}, where[0]));
    std::sort(wanted.begin(), wanted.end());
    REQUIRE(found == std::vector<std::int64_t>(wanted.begin(), std::unique(wanted.begin(), wanted.end())));
    for (std::size_t u = 0; u < found.size(); ++u)
      for (std::int64_t j = 0; j < length; ++j)
        REQUIRE(pulled[u * static_cast<std::size_t>(length) + static_cast<std::size_t>(j)] ==
                all[static_cast<std::size_t>(found[u] * length + j)]);
    return all;
  };
  for (auto const which : {pp::row_updates::lazy, pp::row_updates::standard})
    for (std::int64_t const length : {1, 64, 65}) {
      auto const all = trained(devices, length, which);
      require_close({all}, {trained(pp::cpu_devices(2), length, which)});
      REQUIRE(all == trained(std::vector{devices[0]}, length, which));
    }
}
