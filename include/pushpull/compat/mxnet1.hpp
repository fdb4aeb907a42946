/// @file
/// The optimizers of MXNet 1.x, with its parameters' names and defaults, as pipes of this library's stages.
/// `clip_gradient` of 0 is MXNet's None. To change hyperparameters, give `set_hyperparameters` a new one:
/// `mxnet1::adam({.wd = 0.1})`. In the comments s is rescale_grad and lr learning_rate.
#pragma once

#include <cstdint>
#include <limits>

#include <pushpull/compat/gradient.hpp>
#include <pushpull/compat/layer_rate.hpp>
#include <pushpull/compat/rule.hpp>
#include <pushpull/config.hpp>
#include <pushpull/lr_schedule/compose.hpp>
#include <pushpull/lr_schedule/scalar.hpp>
#include <pushpull/update/adadelta.hpp>
#include <pushpull/update/adagrad.hpp>
#include <pushpull/update/adamax.hpp>
#include <pushpull/update/dcasgd.hpp>
#include <pushpull/update/ftml.hpp>
#include <pushpull/update/ftrl.hpp>
#include <pushpull/update/group_adagrad.hpp>
#include <pushpull/update/lamb.hpp>
#include <pushpull/update/nadam.hpp>
#include <pushpull/update/pipeline.hpp>
#include <pushpull/update/rmsprop.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/scheduled.hpp>
#include <pushpull/update/sgd.hpp>
#include <pushpull/update/sgld.hpp>
#include <pushpull/update/signum.hpp>
#include <pushpull/update/test.hpp>
#include <pushpull/update/transform.hpp>
#include <pushpull/update/wrapper.hpp>

namespace pushpull::inline PUSHPULL_ABI::compat::mxnet1 {

/// The hyperparameters of `sgd`, with the defaults of MXNet 1.x.
struct sgd_options {
  double learning_rate = 0.01;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// w -= lr (clip(s g) + wd w).
inline auto sgd(sgd_options const& o = {}) { return detail::clipped_then_decayed(o) | update::sgd{o.learning_rate}; }

/// The hyperparameters of `sgd_momentum`, with the defaults of MXNet 1.x.
struct sgd_momentum_options {
  double learning_rate = 0.01, momentum = 0;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// SGD with momentum other than 0: m = momentum m - lr (clip(s g) + wd w);  w += m. The state is -m.
inline auto sgd_momentum(sgd_momentum_options const& o = {}) {
  return detail::clipped_then_decayed(o) | rated_momentum{o.learning_rate, o.momentum};
}

/// The hyperparameters of `nag`, with the defaults of MXNet 1.x.
struct nag_options {
  double learning_rate = 0.01, momentum = 0;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// m = momentum m - lr (clip(s g) + wd w);  w += momentum m - lr (clip(s g) + wd w). The state is -m.
inline auto nag(nag_options const& o = {}) {
  return detail::clipped_then_decayed(o) | rated_nesterov{o.learning_rate, o.momentum};
}

/// The hyperparameters of `signum`, with the defaults of MXNet 1.x.
struct signum_options {
  double learning_rate = 0.01, momentum = 0.9, wd_lh = 0;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// m = momentum m - (1 - momentum) (clip(s g) + wd w);  w = (1 - lr wd_lh) w + lr sign(m). The state is -m.
inline auto signum(signum_options const& o = {}) {
  return detail::clipped_then_decayed(o) | lasting_signum{o.learning_rate, o.momentum, o.wd_lh};
}

/// The hyperparameters of `signsgd`, with the defaults of MXNet 1.x.
struct signsgd_options {
  double learning_rate = 0.01;
  double wd = 0;
};
/// Signum with momentum 0: w = (1 - lr wd) w - lr sign(g). Rescaling and clipping change no sign.
inline auto signsgd(signsgd_options const& o = {}) { return update::signsgd{o.learning_rate, o.wd}; }

/// The hyperparameters of `sgld`, with the defaults of MXNet 1.x.
struct sgld_options {
  double learning_rate = 0.01;
  std::uint64_t seed = 0;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// w -= lr / 2 (clip(s g) + wd w);  w += normal noise of variance lr.
inline auto sgld(sgld_options const& o = {}) {
  return detail::clipped_then_decayed(o) | update::sgld{o.learning_rate, o.seed};
}

/// The hyperparameters of `dcasgd`, with the defaults of MXNet 1.x.
struct dcasgd_options {
  double learning_rate = 0.01, lamda = 0.04;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// h = clip(s g);  w -= lr (h + wd w + lamda h^2 (w - w_old)). With momentum MXNet 1.x fails.
inline auto dcasgd(dcasgd_options const& o = {}) {
  return detail::clipped(o) | update::delay_compensation{o.lamda} | update::weight_decay(o.wd) |
         update::sgd{o.learning_rate};
}

/// The hyperparameters of `adam`, with the defaults of MXNet 1.x.
struct adam_options {
  double learning_rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// Decay inside the clip, bias corrections in the rate.
inline auto adam(adam_options const& o = {}) {
  return detail::decayed_then_clipped(o) |
         folded_correction<update::adam>{{o.learning_rate, o.beta1, o.beta2, o.epsilon}};
}

/// The hyperparameters of `adamax`, with the defaults of MXNet 1.x.
struct adamax_options {
  double learning_rate = 0.002, beta1 = 0.9, beta2 = 0.999;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// Without an epsilon. Where MXNet divides 0 by 0, the weight stays.
inline auto adamax(adamax_options const& o = {}) {
  constexpr double smallest = 1.17549435e-38;  // changes no quotient but 0 / 0
  return detail::decayed_then_clipped(o) |
         update::basic_adamax<update::adamax_epsilon::denominator>{o.learning_rate, o.beta1, o.beta2, smallest};
}

/// The hyperparameters of `nadam`, with the defaults of MXNet 1.x.
struct nadam_options {
  double learning_rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, schedule_decay = 0.004;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// MXNet's product of momenta is shared by all parameters; here each has its own.
inline auto nadam(nadam_options const& o = {}) {
  return detail::decayed_then_clipped(o) |
         update::nadam{o.learning_rate, o.beta1, o.beta2, o.epsilon, o.schedule_decay};
}

/// The hyperparameters of `adagrad`, with the defaults of MXNet 1.x.
struct adagrad_options {
  double learning_rate = 0.01, eps = 1e-7;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// h += clip(s g)^2;  w -= lr (clip(s g) / sqrt(h + eps) + wd w).
inline auto adagrad(adagrad_options const& o = {}) {
  using rule = update::basic_adagrad<update::epsilon_inside_root>;
  return detail::clipped(o) | rated_decay{rule{.learning_rate = o.learning_rate, .epsilon = o.eps}, o.wd};
}

/// Of contrib. MXNet takes no decay and tensors of two dimensions.
struct group_adagrad_options {
  double learning_rate = 0.01, eps = 1e-5;
  double rescale_grad = 1, clip_gradient = 0;
};
/// h_r += mean over row r of clip(s g)^2;  w -= lr clip(s g) / sqrt(h_r + eps).
inline auto group_adagrad(group_adagrad_options const& o = {}) {
  return detail::clipped(o) | update::group_adagrad{.learning_rate = o.learning_rate, .epsilon = o.eps};
}

/// The hyperparameters of `rmsprop`, with the defaults of MXNet 1.x.
struct rmsprop_options {
  double learning_rate = 0.001, gamma1 = 0.9, epsilon = 1e-8, clip_weights = 0;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// Decay inside the clip, epsilon inside the root; weights are clipped where clip_weights is above 0.
inline auto rmsprop(rmsprop_options const& o = {}) {
  using scale = update::basic_scale_by_rms<update::epsilon_inside_root>;
  return detail::decayed_then_clipped(o) | scale{o.gamma1, o.epsilon} |
         update::clip_weights{update::sgd{o.learning_rate}, detail::clip(o.clip_weights > 0, o.clip_weights).limit};
}

/// The hyperparameters of `rmsprop_centered`, with the defaults of MXNet 1.x.
struct rmsprop_centered_options {
  double learning_rate = 0.001, gamma1 = 0.9, gamma2 = 0.9, epsilon = 1e-8, clip_weights = 0;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// RMSProp with centered=True: d = gamma2 d - lr g / sqrt(n - a^2 + epsilon);  w += d. The third state is -d.
inline auto rmsprop_centered(rmsprop_centered_options const& o = {}) {
  using scale = update::basic_scale_by_centered_rms<update::epsilon_inside_root>;
  return detail::decayed_then_clipped(o) | scale{o.gamma1, o.epsilon} |
         update::clip_weights{rated_momentum{o.learning_rate, o.gamma2},
                              detail::clip(o.clip_weights > 0, o.clip_weights).limit};
}

/// The hyperparameters of `adadelta`, with the defaults of MXNet 1.x.
struct adadelta_options {
  double rho = 0.9, epsilon = 1e-5;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// w -= x + wd w, with x AdaDelta's step of clip(s g); there is no learning rate.
inline auto adadelta(adadelta_options const& o = {}) {
  return detail::clipped(o) | update::decoupled_decay{update::adadelta{1, o.rho, o.epsilon}, o.wd};
}

/// The hyperparameters of `ftrl`, with the defaults of MXNet 1.x.
struct ftrl_options {
  double learning_rate = 0.1, lamda1 = 0.01, beta = 1;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// wd is the L2 penalty.
inline auto ftrl(ftrl_options const& o = {}) {
  return detail::clipped(o) | update::ftrl{o.learning_rate, o.lamda1, o.wd, o.beta};
}

/// The hyperparameters of `ftml`, with the defaults of MXNet 1.x.
struct ftml_options {
  double learning_rate = 0.01, beta1 = 0.6, beta2 = 0.999, epsilon = 1e-8;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// Decay inside the clip.
inline auto ftml(ftml_options const& o = {}) {
  return detail::decayed_then_clipped(o) | update::ftml{o.learning_rate, o.beta1, o.beta2, o.epsilon};
}

/// The hyperparameters of `lars`, with the defaults of MXNet 1.x.
struct lars_options {
  double learning_rate = 0.01, momentum = 0, eta = 0.001, epsilon = 0;
  bool adapts = true;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// k = eta |w| / (|s g| + wd |w| + epsilon), or 1 if a norm is 0;  m = momentum m - lr k (clip(s g) + wd w);  w += m. The
/// state is -m. Norms are those of each key. Where MXNet goes by names (gamma, beta, bias have k = 1), here keys in a
/// parameter group with adapts = false have. Without momentum_correction, which changes nothing while the rate stays.
inline auto lars(lars_options const& o = {}) { return detail::lars(o); }

/// The hyperparameters of `lamb`, with the defaults of MXNet 1.x.
struct lamb_options {
  double learning_rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-6;
  double lower_bound = 0, upper_bound = std::numeric_limits<double>::infinity();
  bool bias_correction = true;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// LAMB of clip(s g), wd in its direction. Norms are those of each key; |w| is brought within the bounds.
inline auto lamb(lamb_options const& o = {}) {
  return detail::clipped(o) | update::lamb{o.learning_rate, o.beta1,       o.beta2,          o.epsilon, o.wd,
                                           o.lower_bound,   o.upper_bound, o.bias_correction};
}

/// The hyperparameters of `lbsgd`, with the defaults of MXNet 1.x.
struct lbsgd_options {
  double learning_rate = 0.01, momentum = 0;
  lr_schedule::ramp warmup_strategy = lr_schedule::ramp::linear;
  std::int64_t warmup_epochs = 5, batch_scale = 1, updates_per_epoch = 32, begin_epoch = 0;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// LBSGD with the strategies "linear", "power2" (ramp::square) and "sqrt" (ramp::square_root): SGD with momentum whose rate
/// grows from lr to batch_scale lr in warmup_epochs updates_per_epoch batches. An update is given what batch_scale batches
/// make on average, as MXNet's is after as many calls: the caller, or a stage in front, accumulates them. With another
/// rate schedule: `lbsgd_multiplier{...} * schedule`.
inline auto lbsgd(lbsgd_options const& o = {}) {
  lbsgd_multiplier const multiplier{o.batch_scale, o.warmup_epochs * o.updates_per_epoch,
                                    o.begin_epoch * o.updates_per_epoch, o.warmup_strategy};
  return detail::clipped_then_decayed(o) | rated_momentum{o.learning_rate, o.momentum} |
         update::learning_rate(lr_schedule::product{lr_schedule::constant{o.learning_rate}, multiplier});
}

/// The hyperparameters of `lbsgd_lars`, with the defaults of MXNet 1.x.
struct lbsgd_lars_options {
  double learning_rate = 0.01, momentum = 0;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// LBSGD with the strategy "lars": SGD with momentum whose rate is lr |w| / sqrt(|g|^2 + wd |w|^2), the factor within 0.01
/// and 100, norms of each key. What an update is given as in lbsgd.
inline auto lbsgd_lars(lbsgd_lars_options const& o = {}) {
  return layer_rated_momentum<lbsgd_factor>{o.learning_rate, o.momentum, o.wd, o.rescale_grad,
                                            detail::clip(o.clip_gradient > 0, o.clip_gradient).limit};
}

/// The hyperparameters of `test`, with the defaults of MXNet 1.x.
struct test_options {
  double rescale_grad = 1;
};
/// w += s g.
inline auto test(test_options const& o = {}) { return update::rescale(o.rescale_grad) | update::test{}; }

}  // namespace pushpull::compat::mxnet1
