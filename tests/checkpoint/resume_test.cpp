/// @file
/// Rules resume from a checkpoint bit for bit, on any number of devices: one of each kind of state, of count and of number
/// that a store carries. A rule is trivially copyable and its call const: it keeps nothing else.
#include <pushpull/pushpull.hpp>

#include "checkpoint/resume.hpp"
#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace lr = pushpull::lr_schedule;
namespace mxnet1 = pushpull::compat::mxnet1;
namespace djl = pushpull::compat::djl;
namespace update = pushpull::update;

void check(char const* name, auto const& rule) { pp::test::resumable::check(name, rule); }

}  // namespace

TEST_CASE("rules without states, with one to three, and with states that start above 0 resume bit for bit",
          "[optimizer_states][resume]") {
  check("sgd", update::sgd{0.1});
  check("momentum", update::momentum{0.1, 0.9, 0.5});
  check("adagrad", update::adagrad{0.1, 0.01, 0.1, 1e-10});
  check("adam", update::adam{.learning_rate = 0.01, .epsilon = 1e-3});
  check("amsgrad", update::amsgrad{0.01, 0.9, 0.9, 1e-3});
  check("nadam", update::nadam{0.01});
}

TEST_CASE("rules with a state per row or column, and states that start as the weights, resume bit for bit",
          "[optimizer_states][resume]") {
  check("group_adagrad", update::group_adagrad{});
  check("adafactor", update::clip_global_norm(5) | update::adafactor{} | update::ema(0.9));
  check("delay_compensation", update::delay_compensation{} | update::nesterov{});
}

TEST_CASE("rules with random numbers, schedules and carried numbers resume bit for bit", "[optimizer_states][resume]") {
  lr::warm_up const schedule{lr::cosine{.base = 0.1, .updates = 12}, 5};
  check("noise and trace", update::add_noise(0.1, 0.5, 7) | update::trace(0.9, true) | update::adam{});
  check("loss scale", update::dynamic_loss_scale{.initial = 4, .interval = 7} | update::adamw{});
  check("schedule", update::adamw{} | update::learning_rate(schedule) |
                        update::hyperparameter<&update::adamw::weight_decay>(lr::linear{0.0, 0.1, 15}));
}

TEST_CASE("wrappers resume bit for bit", "[optimizer_states][resume]") {
  lr::warm_up const schedule{lr::cosine{.base = 0.1, .updates = 12}, 5};
  check("ema of lookahead", update::clip_global_norm(5) | update::lamb{} | update::lookahead(3) | update::ema(0.9) |
                                update::learning_rate(schedule));
  check("a pipe inside",
        update::decoupled_decay{update::add_noise(0.1) | update::clip_norm(20) | update::adam{}, 0.01} |
            update::ema(0.9, false));
  check("clip_weights", update::clip_weights{update::lookahead{update::sgld{}, 4, 0.5}, 0.9});
}

TEST_CASE("rules since 2022 resume bit for bit", "[optimizer_states][resume]") {
  check("ademamix", update::ademamix{.warmup = 15});
  check("adopt", update::adopt{} | update::swa(4, 3));
  check("adan", update::adan{});
  check("mars", update::mars{});
  check("sophia_g", update::sophia_g{.rho = 1, .batch = 10, .interval = 3});
  check("adam_mini", update::adam_mini{});
  check("centralize_change", update::adam{} | update::centralize_change());
  check("cautious", update::decoupled_decay{update::adam{} | update::cautious(), 0.01});
  check("schedule_free_sgd", update::schedule_free_sgd{.learning_rate = 0.1, .warmup = 13});
  check("schedule_free_adamw", update::schedule_free_adamw{.warmup = 13});
}

TEST_CASE("rules that find their rates resume bit for bit", "[optimizer_states][resume]") {
  check("prodigy", update::clip_global_norm(50) | update::weight_decay(4) | update::prodigy{.d0 = 1e-3});
  check("dadapt_adam", update::weight_decay(4) | update::dadapt_adam{.beta2 = 0.99, .d0 = 1e-3, .growth_rate = 2});
}

TEST_CASE("forms of other libraries resume bit for bit", "[optimizer_states][resume]") {
  check("mxnet1::rmsprop_centered", mxnet1::rmsprop_centered({.epsilon = 1e-3}));
  check("mxnet1::lbsgd",
        mxnet1::lbsgd({.momentum = 0.9, .warmup_epochs = 2, .batch_scale = 2, .updates_per_epoch = 8}));
  check("djl::adamw", djl::adamw());
}
