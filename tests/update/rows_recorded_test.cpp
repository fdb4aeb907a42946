/// @file
/// Rules with numbers of rows and columns against 50 steps that PyTorch, optax and packages recorded: see reference/README.md.
#include <type_traits>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "update/rows_recorded.hpp"

namespace {

namespace update = pushpull::update;

using pushpull::test::compare_rows;

/// Both round in every step, each in its own order.
template <class T>
double const most = std::is_same_v<T, double> ? 1e-13 : 4e-6;

}  // namespace

TEMPLATE_TEST_CASE("adafactor follows PyTorch for 50 steps", "[update][rows]", float, double) {
  compare_rows<TestType>("pytorch", "adafactor", update::adafactor{}, most<TestType>);
  compare_rows<TestType>("pytorch", "adafactor_decayed",
                         update::adafactor{.learning_rate = 0.05,
                                           .beta2_decay = -0.5,
                                           .epsilon1 = 1e-4,
                                           .epsilon2 = 1e-2,
                                           .d = 1.5,
                                           .weight_decay = 0.1},
                         most<TestType>);
}

TEMPLATE_TEST_CASE("centralize follows optax for 50 steps", "[update][rows]", float, double) {
  compare_rows<TestType>("optax", "centralize", update::centralize{} | update::sgd{0.1}, most<TestType>);
}

TEMPLATE_TEST_CASE("centralize_change follows optax's centralize behind scale_by_adam for 50 steps", "[update][rows]",
                   float, double) {
  auto const rule = update::adam{.learning_rate = 0.02} | update::centralize_change();
  compare_rows<TestType>("optax", "centralize_change", rule, most<TestType>);
}

TEMPLATE_TEST_CASE("adam_mini follows its authors' package for 50 steps", "[update][rows]", float, double) {
  update::adam_mini const rule{.learning_rate = 0.02, .beta2 = 0.99, .weight_decay = 0.1};
  compare_rows<TestType>("packages", "adam_mini", rule, most<TestType>);
}
