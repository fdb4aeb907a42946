/// @file
/// Shampoo against 50 steps of another library, by hand, and on several numbers of devices and ranks.
#include <pushpull/update/shampoo.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <string>
#include <type_traits>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "update/matrix_rule.hpp"
#include "update/rows_recorded.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;

pp::test::matrix_model const model{update::shampoo{.learning_rate = 0.1, .interval = 3}};

// A stage that keeps matrices compiles only with such a phase.
static_assert(pp::detail::has_sums_after<update::shampoo, 0> && !pp::detail::has_sums_after<update::shampoo, 1>);

}  // namespace

TEMPLATE_TEST_CASE("shampoo follows pytorch_optimizer for 50 steps", "[update][shampoo]", float, double) {
  // Inverse roots stretch small eigenvalues, and with them their rounding.
  double const most = std::is_same_v<TestType, double> ? 1e-12 : 1e-4;
  pp::test::compare_rows<TestType>(
      "pytorch_optimizer", "shampoo",
      update::shampoo{.learning_rate = 0.02, .epsilon = 0, .weight_decay = 0.1, .interval = 15}, most);
  update::shampoo const rmsprop{.learning_rate = 0.02,
                                .beta1 = 0,
                                .beta2 = 0.99,
                                .epsilon = 0,
                                .interval = 20,
                                .graft = update::shampoo_graft::rmsprop_norm,
                                .nesterov = false,
                                .moving_average = true};
  pp::test::compare_rows<TestType>("pytorch_optimizer", "shampoo_rmsprop", rmsprop, most);
}

TEST_CASE("shampoo's steps of diagonal gradients are those of a diagonal rule", "[update][shampoo]") {
  update::shampoo const plain{
      .learning_rate = 1, .beta1 = 0, .beta2 = 1, .epsilon = 1e-3, .interval = 2, .graft = update::shampoo_graft::none};
  auto const w = pp::test::weights_after(plain, {2, 3}, {{3, 0, 0, 0, -4, 0}, {1, 0, 0, 0, 2, 0}, {5, 0, 0, 0, 7, 0}});
  // Roots are those of step 2; before it the gradient is the step.
  double const first = 9 + 1 + 20e-3, second = 16 + 4 + 20e-3;
  std::vector<double> const expected{-3 - 1 / std::sqrt(first) - 5 / std::sqrt(first),  0, 0, 0,
                                     4 - 2 / std::sqrt(second) - 7 / std::sqrt(second), 0};
  for (std::size_t i = 0; i < w.size(); ++i) CHECK(std::abs(w[i] - expected[i]) < 1e-14);

  update::shampoo grafted = plain;
  grafted.graft = update::shampoo_graft::adagrad_norm;
  grafted.epsilon = 0;
  grafted.interval = 1;
  auto const v = pp::test::weights_after(grafted, {2, 3}, {{3, 0, 0, 0, -4, 0}});  // signs, with the norm of signs
  for (std::size_t i = 0; i < v.size(); ++i) CHECK(std::abs(v[i] - (i == 0 ? -1 : i == 4 ? 1 : 0)) < 1e-9);
}

TEST_CASE("shampoo leaves a long side alone, and vectors to the rule that it grafts", "[update][shampoo]") {
  update::shampoo_up_to<2> const rule{
      .learning_rate = 1, .beta1 = 0, .beta2 = 1, .epsilon = 0, .interval = 1, .graft = update::shampoo_graft::none};
  for (pp::shape const& shape : {pp::shape{2, 3}, pp::shape{3, 2}}) {  // (G G^T)^(-1/2) G has orthogonal rows
    auto const w = pp::test::weights_after(rule, shape, {{1, 2, 3, -1, 0.5, 4}});
    auto const at = [&](std::size_t i, std::size_t k) { return shape[0] == 2 ? w[i * 3 + k] : w[k * 2 + i]; };
    for (std::size_t i = 0; i < 2; ++i)
      for (std::size_t j = 0; j < 2; ++j)
        CHECK(std::abs(at(i, 0) * at(j, 0) + at(i, 1) * at(j, 1) + at(i, 2) * at(j, 2) - (i == j ? 1 : 0)) < 1e-12);
  }
  CHECK(pp::test::weights_after(rule, {3, 3}, {{1, 2, 3, 4, 5, 6, 7, 8, 9}}) ==
        std::vector<double>{-1, -2, -3, -4, -5, -6, -7, -8, -9});
  CHECK(pp::test::weights_after(rule, {3}, {{1, 2, 3}}) == std::vector<double>{-1, -2, -3});
}

TEST_CASE("shampoo's steps have the same bits on any number of devices", "[update][shampoo]") { model.check_devices(); }
TEST_CASE("shampoo resumes bit for bit amid an interval", "[update][shampoo]") { model.check_resuming(); }
TEST_CASE("shampoo over ranks has the bits of one process", "[update][shampoo][ranks]") { model.check_ranks(); }
TEST_CASE("a step of shampoo that fails changes nothing", "[update][shampoo][errors]") {
  model.check_errors("its statistics are not finite");
}

TEST_CASE("ranks of which one cannot make a step of shampoo all refuse the step", "[update][shampoo][errors][ranks]") {
  pp::test::matrix_model const rmsprop{
      update::shampoo{.learning_rate = 0.1, .interval = 3, .graft = update::shampoo_graft::rmsprop_norm}};
  rmsprop.check_errors_of_ranks("graft_sum");
}

TEST_CASE("the workspaces of a decomposition are exact where floats are not", "[update][shampoo]") {
  static_assert(pp::eigenvector_workspace(1).numbers == 9 && pp::eigenvector_workspace(1).integers == 8);
  static_assert(pp::eigenvector_workspace(2897).numbers == 16802601 &&
                pp::eigenvector_workspace(2897).integers == 14488);
  static_assert(pp::eigenvector_workspace(4096).numbers == 33579009);
  static_assert(pp::eigenvector_scratch<float>(4096) == 33579010 + 2 * 20483);
  static_assert(pp::eigenvector_workspace(32766).is_countable() && !pp::eigenvector_workspace(32767).is_countable());
}

TEST_CASE("shampoo's statistics that a narrow type cannot hold are an error", "[update][shampoo][errors]") {
  using store_type = pp::kv_store<pp::half, pp::cpu_device<>, update::shampoo, pp::synchronous>;
  store_type store{pp::cpu_devices(1), update::shampoo{.learning_rate = 1e-3, .beta2 = 1}};
  std::vector<pp::half> w(4, pp::half(1.0F)), g(4, pp::half(150.0F));
  auto const view = [](std::vector<pp::half>& of) { return pp::tensor_view(of.data(), pp::shape{2, 2}); };
  store.init("w", view(w));
  store.push("w", view(g)).wait();  // G G^T is of 45,000
  auto const kept = store.state("w", "left");
  REQUIRE_THROWS_AS(store.push("w", view(g)).wait(), pp::update_error);
  REQUIRE(store.steps("w") == 1);
  REQUIRE(store.state("w", "left") == kept);
  g.assign(4, pp::half(1.0F));
  store.push("w", view(g)).wait();
  REQUIRE(store.steps("w") == 2);
}

TEST_CASE("an exception of a transform is an error of its key's step", "[update][shampoo][errors]") {
  struct clock {
    int prepared;
    bool skipped;
  };
  clock const clocks[2]{};
  std::vector<float> kept(2, 3.0F), copies(2), terms(2, 1.0F);
  pp::cpu_device<> const device;
  pp::pass::matrix_states<pp::cpu_device<>, update::shampoo, float, float> states;
  std::size_t const matrices[]{1, 4};  // of several stages
  for (std::size_t i = 0; i < 2; ++i)
    states.add({kept.data() + i, nullptr, [](void const*) { return std::string("key"); }}, kept.data() + i, 1,
               static_cast<std::int32_t>(i), matrices[i]);
  states.lay_out([&](std::int64_t, std::size_t matrix) { return copies.data() + (matrix == 4 ? 1 : 0); });
  pp::matrix<float> m{};
  m.terms = terms.data();
  m.size = 2;
  for (std::size_t const other : {0U, 2U, 5U}) states.change(device, other, m, clocks, [] { throw std::bad_alloc(); });
  states.change(device, 1, m, clocks, [] {});
  states.expect_success(clocks);
  REQUIRE(copies == std::vector<float>{3, 0});
  states.change(device, 4, m, clocks, [] { throw std::bad_alloc(); });
  REQUIRE_THROWS_AS(states.expect_success(clocks), pp::update_error);
  REQUIRE(std::isnan(terms[0]));
}

TEST_CASE("the cost of a vector is its size in shampoo", "[update][shampoo]") {
  auto const cost = [](pp::shape const& shape) {
    return pp::detail::cost_of_matrices<update::shampoo>(
        [&](pp::factors const& f) { return pp::pass::matrix_of<float>(f, shape); });
  };
  REQUIRE(cost({8000}) == 8000);
  REQUIRE(cost({}) == 1);
  REQUIRE(cost({0, 3}) == 0);
  REQUIRE(cost({2, 3}) == 6 * (1 + 2 + 3) + 8 + 27);
  REQUIRE(cost({3, 10000}) == 30000 * (1 + 3) + 27);
}

TEST_CASE("a loss scale skips shampoo's step of a gradient that is not finite", "[update][shampoo]") {
  pp::kv_store store{pp::cpu_devices(2), update::apply_if_finite{} | update::shampoo{.interval = 1}, pp::synchronous{}};
  std::vector<float> w(6, 1), g{1, 2, 3, 4, 5, std::numeric_limits<float>::infinity()};
  store.init("w", pp::tensor_view(w.data(), pp::shape{2, 3}));
  store.push("w", pp::tensor_view(g.data(), pp::shape{2, 3})).wait();
  REQUIRE(store.state("w", "left") == std::vector<float>(4));
  REQUIRE(store.steps("w") == 0);
  g[5] = 6;
  store.push("w", pp::tensor_view(g.data(), pp::shape{2, 3})).wait();
  REQUIRE(store.state("w", "left")[0] > 0);
  REQUIRE(store.steps("w") == 1);
}

TEST_CASE("shampoo refuses what its formula cannot use", "[update][shampoo]") {
  for (double const wrong : {-1.0, std::numeric_limits<double>::quiet_NaN()}) {
    REQUIRE_THROWS_AS((update::shampoo{.learning_rate = wrong}.validate()), pp::invalid_argument);
    REQUIRE_THROWS_AS((update::shampoo{.beta1 = wrong}.validate()), pp::invalid_argument);
    REQUIRE_THROWS_AS((update::shampoo{.beta2 = wrong}.validate()), pp::invalid_argument);
    REQUIRE_THROWS_AS((update::shampoo{.epsilon = wrong}.validate()), pp::invalid_argument);
  }
  REQUIRE_THROWS_AS((update::shampoo{.interval = 0}.validate()), pp::invalid_argument);
  update::shampoo{}.validate();
}
