/// @file
/// Rules of matrices on GPUs, with cuBLAS and cuSOLVER or, on the emulator, stand-ins for them. Without a GPU every case
/// reports that it was skipped.
#include <pushpull/update/muon.cuh>
#include <pushpull/update/shampoo.cuh>
#include <pushpull/update/soap.cuh>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <pushpull/pushpull.cuh>

#include "support/catch.hpp"
#include "support/cuda_devices.cuh"
#include "update/matrix_rule.hpp"
#include "update/rows_recorded.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;

/// The weights of four tensors after three steps.
template <class Rule>
std::vector<std::vector<float>> trained(int devices, Rule const& rule, Rule const* of_b = nullptr) {
  std::vector<pp::shape> const shapes{{61, 17}, {5, 7, 3}, {9}, {17, 130}};
  std::vector<std::string> const names{"a", "b", "c", "d"};
  pp::kv_store store{pp::test::logical_devices(devices), rule, pp::synchronous{}};
  std::vector<std::vector<float>> weights, gradients;
  std::vector<pp::tensor_view<float>> w, g;
  for (auto const& s : shapes) {
    weights.emplace_back(s.size(), 1.0F);
    gradients.emplace_back(s.size());
  }
  for (std::size_t k = 0; k < shapes.size(); ++k) {
    w.emplace_back(weights[k].data(), shapes[k]);
    g.emplace_back(gradients[k].data(), shapes[k]);
  }
  store.init(names, w);
  if (of_b != nullptr) store.add_group([](std::string_view key) { return key == "b"; }, *of_b);
  for (std::size_t t = 0; t < 3; ++t) {
    for (auto& x : gradients)
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>((i * 37 + t * 11) % 29) / 8 - 1.5F;
    store.push(names, g);
  }
  store.pull(names, w);
  return weights;
}

/// The next calls that decompose fail, or have results that are not finite. On the emulator alone.
extern "C" __attribute__((weak)) void pushpull_test_fail_decompositions(int count);
extern "C" __attribute__((weak)) void pushpull_test_spoil_decompositions(int count);

pp::test::matrix_model const shampoo_model{update::shampoo{.learning_rate = 0.1, .interval = 3},
                                           &pp::test::logical_devices};
pp::test::matrix_model const soap_model{update::soap{.learning_rate = 0.1, .interval = 5}, &pp::test::logical_devices};

}  // namespace

TEMPLATE_TEST_CASE("muon on GPUs follows PyTorch for 50 steps", "[cuda]", float, double) {
  auto const devices = pp::test::logical_devices(2);
  if (devices.empty()) return;
  double const most = std::is_same_v<TestType, double> ? 1e-12 : 1e-5;
  pp::test::compare_rows<TestType>("pytorch", "muon", update::muon{.learning_rate = 0.02}, most, devices);
}

TEST_CASE("muon's matrices are those of one GPU, with a rule of their own for some", "[cuda]") {
  if (pp::test::logical_devices(1).empty()) return;
  auto const rule = [](std::int64_t iterations) {
    return update::clip_global_norm(5) | update::muon{.learning_rate = 0.1, .iterations = iterations} |
           update::ema(0.9);
  };
  auto const all = rule(5), short_rule = rule(2);
  auto const one = trained(1, all);
  for (auto const& x : one)
    for (float const y : x) REQUIRE(std::isfinite(y));
  REQUIRE(trained(3, all) == one);
  auto const grouped = trained(3, all, &short_rule);
  auto expected = one;
  expected[1] = trained(1, short_rule)[1];
  REQUIRE(grouped == expected);
  REQUIRE(grouped[1] != one[1]);
}

TEST_CASE("muon's products in fewer bits move weights alike", "[cuda]") {
  if (pp::test::logical_devices(1).empty()) return;
  auto const full = trained(1, update::muon{.learning_rate = 0.1});
  for (auto const precision : {pp::product_precision::tf32, pp::product_precision::bf16}) {
    auto const rounded = trained(2, update::muon{.learning_rate = 0.1, .products = precision});
    double difference = 0, change = 0;
    for (std::size_t k = 0; k < full.size(); ++k)
      for (std::size_t i = 0; i < full[k].size(); ++i) {
        difference += std::pow(static_cast<double>(rounded[k][i] - full[k][i]), 2);
        change += std::pow(static_cast<double>(full[k][i] - 1), 2);
      }
    // The iteration of five steps stretches the rounding of small singular values.
    REQUIRE(difference < 0.01 * change);
    if (precision == pp::product_precision::bf16) REQUIRE(difference > 0);
  }
}

TEMPLATE_TEST_CASE("shampoo and soap on GPUs follow pytorch_optimizer for 50 steps", "[cuda]", float, double) {
  auto const devices = pp::test::logical_devices(2);
  if (devices.empty()) return;
  double const most = std::is_same_v<TestType, double> ? 1e-12 : 1e-4;
  pp::test::compare_rows<TestType>(
      "pytorch_optimizer", "shampoo",
      update::shampoo{.learning_rate = 0.02, .epsilon = 0, .weight_decay = 0.1, .interval = 15}, most, devices);
  update::soap const square{.learning_rate = 0.02,
                            .beta1 = 0.9,
                            .beta2 = 0.99,
                            .shampoo_beta = 0.8,
                            .epsilon = 1e-2,
                            .weight_decay = 0.1,
                            .interval = 3,
                            .normalize = true};
  pp::test::compare_rows<TestType>("pytorch_optimizer", "soap_square", square, most, devices);
}

TEST_CASE("shampoo and soap have the same bits on any number of GPUs, and resume bit for bit", "[cuda]") {
  if (pp::test::logical_devices(1).empty()) return;
  shampoo_model.check_devices();
  shampoo_model.check_resuming();
  soap_model.check_devices();
  soap_model.check_resuming();
}

TEST_CASE("GPUs leave out a key's step of shampoo or soap that fails", "[cuda]") {
  if (pp::test::logical_devices(1).empty()) return;
  shampoo_model.check_left_alone();
  soap_model.check_left_alone();
}

TEST_CASE("GPUs keep the old roots and bases where a decomposition fails", "[cuda]") {
  if (pp::test::logical_devices(1).empty() || pushpull_test_fail_decompositions == nullptr) return;
  for (auto* const fail : {&pushpull_test_fail_decompositions, &pushpull_test_spoil_decompositions}) {
    for (unsigned const step : {3U, 6U}) shampoo_model.check_failed_decompositions(step, fail, "left_root");
    for (unsigned const step : {1U, 6U}) soap_model.check_failed_decompositions(step, fail, "left_basis");
  }
}

TEST_CASE("soap on GPUs starts from the identity where bases are missing", "[cuda]") {
  if (pp::test::logical_devices(1).empty()) return;
  auto store = soap_model.on(2);
  auto before = store.state("square", "exp_avg");
  store.set_steps("square", 1);
  soap_model.train(store, 2, 2);
  std::vector<float> identity(25);
  for (std::size_t i = 0; i < 25; i += 6) identity[i] = 1;
  REQUIRE(store.state("square", "left_basis") == identity);
  REQUIRE(store.state("square", "right_basis") == identity);
  REQUIRE(store.state("square", "exp_avg") != before);
}

TEST_CASE("a library that has no memory amid a step is a cuda_error", "[cuda]") {
  REQUIRE_THROWS_AS(pp::detail::cublas_check(CUBLAS_STATUS_ALLOC_FAILED, "a call"), pp::cuda_error);
  REQUIRE_THROWS_AS(pp::detail::cusolver_check(CUSOLVER_STATUS_ALLOC_FAILED, "a call"), pp::cuda_error);
}

TEST_CASE("GPUs count the steps of shampoo that a loss scale does not skip", "[cuda]") {
  auto const devices = pp::test::logical_devices(2);
  if (devices.empty()) return;
  auto rule = update::apply_if_finite{} | update::shampoo{.beta2 = 1, .interval = 2};
  pp::kv_store<pp::half, pp::cuda_device, decltype(rule), pp::synchronous> store{devices, rule};
  std::vector<pp::half> w(4, pp::half(1.0F));
  using view = pp::tensor_view<pp::half>;
  std::vector<std::string> const names{"u", "v", "w"};
  store.init(names, std::vector<view>(3, view(w.data(), pp::shape{2, 2})));
  auto const push = [&](float x) {
    std::vector<pp::half> g(4, pp::half(x)), small(4, pp::half(1.0F));
    view const of_others(small.data(), pp::shape{2, 2});
    store.push(names, std::vector<view>{of_others, of_others, view(g.data(), pp::shape{2, 2})}).wait();
  };
  for (int t = 0; t < 3; ++t)  // keys count for themselves: the others are at the end of an interval
    store.push(std::vector<std::string>{"u", "v"}, std::vector<view>(2, view(w.data(), pp::shape{2, 2}))).wait();
  auto const is_zero = [&](char const* state) {
    auto const values = store.state("w", state);
    return std::ranges::all_of(values, [](auto x) { return !(static_cast<float>(x) > 0); });
  };
  push(INFINITY);
  REQUIRE(store.steps("w") == 0);
  REQUIRE(is_zero("left"));
  push(100);
  REQUIRE(store.steps("w") == 1);
  REQUIRE(!is_zero("left"));
  REQUIRE(is_zero("left_root"));
  push(INFINITY);
  push(100);
  REQUIRE(store.steps("w") == 2);
  REQUIRE(!is_zero("left_root"));
  auto const kept = store.state("w", "left");
  REQUIRE(store.steps("u") == 5);
  push(150);  // whose statistics halves cannot hold
  REQUIRE(store.steps("w") == 3);
  REQUIRE(store.state("w", "left") == kept);
}
