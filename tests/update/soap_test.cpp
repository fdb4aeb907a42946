/// @file
/// SOAP against 50 steps of another library, by hand, and on several numbers of devices and ranks.
#include <pushpull/update/soap.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "update/matrix_rule.hpp"
#include "update/rows_recorded.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;

pp::test::matrix_model const model{update::soap{.learning_rate = 0.1, .interval = 5}};

}  // namespace

TEMPLATE_TEST_CASE("soap follows pytorch_optimizer for 50 steps", "[update][soap]", float, double) {
  double const most = std::is_same_v<TestType, double> ? 1e-12 : 1e-5;
  pp::test::compare_rows<TestType>("pytorch_optimizer", "soap",
                                   update::soap_up_to<3>{.learning_rate = 0.02, .interval = 7}, most);
  update::soap const square{.learning_rate = 0.02,
                            .beta1 = 0.9,
                            .beta2 = 0.99,
                            .shampoo_beta = 0.8,
                            .epsilon = 1e-2,
                            .weight_decay = 0.1,
                            .interval = 3,
                            .normalize = true};
  pp::test::compare_rows<TestType>("pytorch_optimizer", "soap_square", square, most);
}

TEST_CASE("soap's steps of diagonal gradients are Adam's, and its first step is none", "[update][soap]") {
  update::soap const rule{
      .learning_rate = 0.5, .beta1 = 0.75, .beta2 = 0.96, .epsilon = 0.1, .weight_decay = 0.25, .interval = 1};
  CHECK(pp::test::weights_after(rule, {2, 2}, {{3, 0, 0, -4}}) == std::vector<double>(4));
  auto const w = pp::test::weights_after(rule, {2, 2}, {{3, 0, 0, -4}, {1, 0, 0, 2}});
  auto const expected = [](double g) {
    return -(1 - 0.5 * 0.25) * 0.5 * g / (std::abs(g) + 0.1 / std::sqrt(1 - 0.96));
  };
  CHECK(std::abs(w[0] - expected(1)) < 1e-14);
  CHECK(std::abs(w[3] - expected(2)) < 1e-14);
  CHECK(std::abs(w[1]) + std::abs(w[2]) < 1e-14);
}

TEST_CASE("soap's steps of a square matrix are those of a larger one with zeros around it", "[update][soap]") {
  update::soap const rule{.learning_rate = 0.1, .epsilon = 1e-4, .interval = 2};
  std::mt19937 engine(1);
  std::normal_distribution<double> normal;
  std::vector<std::vector<double>> square, wide, tall;
  for (int t = 0; t < 9; ++t) {
    square.emplace_back(9);
    wide.emplace_back(15);
    tall.emplace_back(15);
    for (std::size_t i = 0; i < 9; ++i)
      square.back()[i] = wide.back()[i / 3 * 5 + i % 3] = tall.back()[i] = normal(engine);
  }
  auto const expected = pp::test::weights_after(rule, {3, 3}, square);
  auto const w = pp::test::weights_after(rule, {3, 5}, wide), v = pp::test::weights_after(rule, {5, 3}, tall);
  for (std::size_t i = 0; i < 15; ++i) {
    CHECK(std::abs(w[i] - (i % 5 < 3 ? expected[i / 5 * 3 + i % 5] : 0)) < 1e-10);
    CHECK(std::abs(v[i] - (i < 9 ? expected[i] : 0)) < 1e-10);
  }
}

TEST_CASE("soap's bases are orthogonal", "[update][soap]") {
  auto store = model.on(2);
  model.train(store, 1, 7);
  auto const basis = store.state("kernels", "right_basis");
  REQUIRE(store.state_shape("kernels", "right_basis") == pp::shape{12, 12});
  REQUIRE(store.state_shape("kernels", "exp_avg") == pp::shape{4, 12});
  REQUIRE(store.state_shape("empty", "left") == pp::shape{0});
  for (std::size_t i = 0; i < 12; ++i)
    for (std::size_t j = 0; j < 12; ++j) {
      double product = 0;
      for (std::size_t k = 0; k < 12; ++k) product += double{basis[i * 12 + k]} * double{basis[j * 12 + k]};
      CHECK(std::abs(product - (i == j ? 1 : 0)) < 1e-5);
    }
}

TEST_CASE("soap's steps have the same bits on any number of devices", "[update][soap]") { model.check_devices(); }
TEST_CASE("soap resumes bit for bit amid an interval", "[update][soap]") { model.check_resuming(); }
TEST_CASE("soap over ranks has the bits of one process", "[update][soap][ranks]") { model.check_ranks(); }
TEST_CASE("a step of soap that fails changes nothing", "[update][soap][errors]") {
  model.check_errors("its statistics are not finite");
}
TEST_CASE("ranks of which one cannot make a step of soap all refuse the step", "[update][soap][errors][ranks]") {
  model.check_errors_of_ranks("exp_avg");
}

TEST_CASE("soap refuses what its formula cannot use", "[update][soap]") {
  for (double const wrong : {-1.5, std::numeric_limits<double>::quiet_NaN()}) {
    REQUIRE_THROWS_AS((update::soap{.learning_rate = wrong}.validate()), pp::invalid_argument);
    REQUIRE_THROWS_AS((update::soap{.beta1 = wrong}.validate()), pp::invalid_argument);
    REQUIRE_THROWS_AS((update::soap{.shampoo_beta = wrong}.validate()), pp::invalid_argument);
    REQUIRE_THROWS_AS((update::soap{.epsilon = wrong}.validate()), pp::invalid_argument);
  }
  REQUIRE_THROWS_AS((update::soap{.interval = 0}.validate()), pp::invalid_argument);
  update::soap{}.validate();
}
