/// @file
/// Rules against 50 steps that PyTorch, optax and packages of rules' authors recorded: see reference/README.md.
#include <pushpull/pushpull.hpp>
#include <type_traits>

#include "support/catch.hpp"
#include "update/recorded.hpp"

namespace update = pushpull::update;

namespace {

/// Both round in every step, each in its own order.
template <class T>
double const most = std::is_same_v<T, double> ? 1e-13 : 4e-6;

}  // namespace

TEMPLATE_TEST_CASE("rules follow PyTorch for 50 steps", "[update]", float, double) {
  using T = TestType;
  pushpull::test::recording const pytorch("pytorch");
  pytorch.compare<T>("adagrad", update::adagrad{0.1, 0.01, 0.1}, most<T>);
  pytorch.compare<T>("rmsprop", update::rmsprop{0.01}, most<T>);
  pytorch.compare<T>("rmsprop_momentum", update::scale_by_rms{} | update::momentum{0.01, 0.9}, most<T>);
  pytorch.compare<T>("rmsprop_centered", update::centered_rmsprop{0.01, 0.9}, most<T>);
  pytorch.compare<T>("adadelta", update::adadelta{0.5}, most<T>);
  pytorch.compare<T>("adamax", update::adamax{0.02}, most<T>);
  pytorch.compare<T>("nadam", update::nadam{0.02}, most<T>);
  pytorch.compare<T>("radam", update::radam{0.02}, most<T>);
  pytorch.compare<T>("amsgrad", update::amsgrad{.learning_rate = 0.02, .beta2 = 0.9}, most<T>);
}

TEMPLATE_TEST_CASE("rules follow optax for 50 steps", "[update]", float, double) {
  using T = TestType;
  pushpull::test::recording const optax("optax");
  optax.compare<T>("lion", update::lion{0.01, 0.9, 0.99, 0.1}, most<T>);
  optax.compare<T>("sign_sgd", update::signsgd{0.01}, most<T>);
  optax.compare<T>("adabelief", update::adabelief{0.02}, most<T>);
  optax.compare<T>("yogi", update::yogi{0.02}, most<T>);
  optax.compare<T>("adamax", update::adamax{0.02}, most<T>);
  optax.compare<T>("trace", update::trace(0.8) | update::sgd{0.1}, most<T>);
  optax.compare<T>("trace_nesterov", update::trace(0.8, true) | update::sgd{0.1}, most<T>);
  optax.compare<T>("ema", update::adam{0.02} | update::ema(0.9), most<T>);
  optax.compare<T>("lookahead", update::adam{0.02} | update::lookahead(6, 0.4), most<T>);
}

TEMPLATE_TEST_CASE("rules follow packages of their authors, or of collections, for 50 steps", "[update]", float,
                   double) {
  using T = TestType;
  pushpull::test::recording const packages("packages");
  packages.compare<T>(
      "ademamix",
      update::ademamix{
          .learning_rate = 0.02, .beta2 = 0.99, .beta3 = 0.995, .alpha = 3, .weight_decay = 0.1, .warmup = 20},
      most<T>);
  packages.compare<T>("adopt", update::adopt{.learning_rate = 0.02, .beta2 = 0.99, .weight_decay = 0.1}, most<T>);
  packages.compare<T>("adan", update::adan{.learning_rate = 0.02, .weight_decay = 0.1}, most<T>);
  packages.compare<T>("mars", update::mars{.learning_rate = 0.02, .weight_decay = 0.1}, most<T>);
  packages.compare<T>("schedule_free_sgd", update::schedule_free_sgd{0.1, 0.9, 0.1, 6}, most<T>);
  packages.compare<T>("schedule_free_adamw",
                      update::schedule_free_adamw{.learning_rate = 0.02, .weight_decay = 0.1, .warmup = 6}, most<T>);
  packages.compare<T>("swa", update::adam{0.02} | update::swa(5, 3), most<T>);
  packages.compare<T>("sophia_g",
                      update::sophia_g{.learning_rate = 0.5 * 0.04,
                                       .beta1 = 0.9,
                                       .epsilon = 1e-6 * 0.04,
                                       .weight_decay = 0.1 / 0.04,
                                       .batch = 30,
                                       .interval = 3},
                      most<T>);
  packages.compare<T>("cautious_adamw", update::decoupled_decay{update::adam{0.02} | update::cautious(), 0.02 * 0.1},
                      most<T>);
  packages.compare<T>("cautious_lion", update::cautious{update::lion{0.01, 0.5, 0.9, 0}}, most<T>);
  auto const pull = update::weight_decay(4);
  // Its rate is found from differences of weights, in which digits cancel.
  packages.compare<T>("prodigy_pulled", pull | update::prodigy{.weight_decay = 0.1, .d0 = 1e-2}, 10 * most<T>);
  packages.compare<T>("prodigy_guarded_pulled",
                      pull | update::prodigy{.learning_rate = 0.5,
                                             .d0 = 1e-3,
                                             .d_coef = 2,
                                             .growth_rate = 1.1,
                                             .correct_bias = true,
                                             .safeguard_warmup = true},
                      10 * most<T>);
  packages.compare<T>("dadapt_adam_pulled",
                      pull | update::dadapt_adam{.beta2 = 0.99, .weight_decay = 0.1, .d0 = 1e-3, .growth_rate = 1.5},
                      most<T>);
  packages.compare<T>("dadapt_adam_corrected_pulled",
                      pull | update::dadapt_adam{.learning_rate = 0.5, .beta2 = 0.9, .d0 = 1e-4, .correct_bias = true},
                      most<T>);
}
