/// @file
/// Rules with norms, random numbers and schedules, transforms and forms of other libraries resume from a checkpoint bit for
/// bit, on any number of devices.
#include <pushpull/pushpull.hpp>

#include "checkpoint/resume.hpp"
#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace lr = pushpull::lr_schedule;
namespace mxnet1 = pushpull::compat::mxnet1;
namespace mxnet2 = pushpull::compat::mxnet2;
namespace djl = pushpull::compat::djl;
namespace update = pushpull::update;

void check(char const* name, auto const& rule) { pp::test::resumable::check(name, rule); }

}  // namespace

TEST_CASE("rules with norms and random numbers resume bit for bit", "[optimizer_states][resume]") {
  check("lars", update::lars{.learning_rate = 0.5, .weight_decay = 0.01, .trust_coefficient = 0.1});
  check("lamb", update::lamb{.learning_rate = 0.05, .weight_decay = 0.02});
  check("lans", update::lans{.learning_rate = 0.05, .weight_decay = 0.02});
  check("sgld", update::sgld{.seed = 3});
  check("group_adagrad", update::group_adagrad{});
  check("adafactor", update::clip_global_norm(5) | update::adafactor{} | update::ema(0.9));
}

TEST_CASE("transforms resume bit for bit", "[optimizer_states][resume]") {
  check("clips and decay", update::rescale(0.5) | update::clip_value(0.4) | update::weight_decay(0.01) |
                               update::clip_norm(20) | update::clip_global_norm(15) | update::adam{});
  check("noise and trace", update::add_noise(0.1, 0.5, 7) | update::trace(0.9, true) | update::adam{});
  check("scale_by_rms", update::scale_by_rms{} | update::scale_by_centered_rms{} | update::momentum{});
  check("delay_compensation", update::delay_compensation{} | update::nesterov{});
  check("loss scale", update::dynamic_loss_scale{.initial = 4, .interval = 7} | update::adamw{});
  check("finite", update::apply_if_finite{} | update::sgd{});
}

TEST_CASE("wrappers and schedules resume bit for bit", "[optimizer_states][resume]") {
  lr::warm_up const schedule{lr::cosine{.base = 0.1, .updates = 12}, 5};
  check("schedule", update::adamw{} | update::learning_rate(schedule) |
                        update::hyperparameter<&update::adamw::weight_decay>(lr::linear{0.0, 0.1, 15}));
  check("ema of lookahead", update::clip_global_norm(5) | update::lamb{} | update::lookahead(3) | update::ema(0.9) |
                                update::learning_rate(schedule));
  check("a pipe inside",
        update::decoupled_decay{update::add_noise(0.1) | update::clip_norm(20) | update::adam{}, 0.01} |
            update::ema(0.9, false));
  check("clip_weights", update::clip_weights{update::lookahead{update::sgld{}, 4, 0.5}, 0.9});
}

TEST_CASE("forms of other libraries resume bit for bit", "[optimizer_states][resume]") {
  check("mxnet1::sgd_momentum", mxnet1::sgd_momentum({.learning_rate = 0.1, .momentum = 0.9, .wd = 0.01}));
  check("mxnet1::nag", mxnet1::nag({.learning_rate = 0.1, .momentum = 0.9, .wd = 0.01}));
  check("mxnet1::adagrad", mxnet1::adagrad({.wd = 0.01}));
  check("mxnet1::rmsprop_centered", mxnet1::rmsprop_centered({.epsilon = 1e-3}));
  check("mxnet1::lbsgd",
        mxnet1::lbsgd({.momentum = 0.9, .warmup_epochs = 2, .batch_scale = 2, .updates_per_epoch = 8}));
  check("mxnet1::lbsgd_lars", mxnet1::lbsgd_lars({.momentum = 0.9, .wd = 0.01}));
  check("mxnet2::lars", mxnet2::lars({.momentum = 0.9, .eta = 0.1}));
  check("mxnet2::adamw", mxnet2::adamw({.wd = 0.01}));
  check("mxnet2::adabelief", mxnet2::adabelief({.wd = 0.01}));
  check("djl::adamw", djl::adamw());
}
