/// @file
/// The optimizers of MXNet 2.0, with its parameters' names and defaults, as pipes of this library's stages. Where
/// nothing else is said, decay is added after the clip. `clip_gradient` of 0 is MXNet's None. To change
/// hyperparameters, give `set_hyperparameters` a new one: `mxnet2::adam({.wd = 0.1})`. In the comments s is
/// rescale_grad and lr learning_rate.
#pragma once

#include <cstdint>
#include <limits>

#include <pushpull/compat/gradient.hpp>
#include <pushpull/compat/layer_rate.hpp>
#include <pushpull/compat/mxnet1.hpp>
#include <pushpull/compat/rule.hpp>
#include <pushpull/config.hpp>
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
#include <pushpull/update/sgd.hpp>
#include <pushpull/update/sgld.hpp>
#include <pushpull/update/signum.hpp>
#include <pushpull/update/test.hpp>
#include <pushpull/update/transform.hpp>
#include <pushpull/update/wrapper.hpp>

namespace pushpull::inline PUSHPULL_ABI::compat::mxnet2 {

/// The hyperparameters of `sgd`, with the defaults of MXNet 2.0.
struct sgd_options {
  double learning_rate = 0.1;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// w -= lr (clip(s g) + wd w).
inline auto sgd(sgd_options const& o = {}) { return detail::clipped_then_decayed(o) | update::sgd{o.learning_rate}; }

/// The hyperparameters of `sgd_momentum`, with the defaults of MXNet 2.0.
struct sgd_momentum_options {
  double learning_rate = 0.1, momentum = 0;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// SGD with momentum other than 0: m = momentum m - lr (clip(s g) + wd w);  w += m. The state is -m.
inline auto sgd_momentum(sgd_momentum_options const& o = {}) {
  return detail::clipped_then_decayed(o) | rated_momentum{o.learning_rate, o.momentum};
}

/// The hyperparameters of `nag`, with the defaults of MXNet 2.0.
struct nag_options {
  double learning_rate = 0.1, momentum = 0.9;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// m = momentum m - lr (clip(s g) + wd w);  w += momentum m - lr (clip(s g) + wd w). The state is -m.
inline auto nag(nag_options const& o = {}) {
  return detail::clipped_then_decayed(o) | rated_nesterov{o.learning_rate, o.momentum};
}

/// The hyperparameters of `signum`, with the defaults of MXNet 2.0.
struct signum_options {
  double learning_rate = 0.01, momentum = 0.9, wd_lh = 0;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// m = momentum m - (1 - momentum) (clip(s g) + wd w);  w = (1 - lr wd_lh) w + lr sign(m). The state is -m.
inline auto signum(signum_options const& o = {}) {
  return detail::clipped_then_decayed(o) | lasting_signum{o.learning_rate, o.momentum, o.wd_lh};
}

/// The hyperparameters of `signsgd`, with the defaults of MXNet 2.0.
struct signsgd_options {
  double learning_rate = 0.01, wd_lh = 0;
  double wd = 0;
};
/// Signum with momentum 0: w = (1 - lr (wd + wd_lh)) w - lr sign(g). Rescaling and clipping change no sign.
inline auto signsgd(signsgd_options const& o = {}) { return lasting_signsgd{o.learning_rate, o.wd, o.wd_lh}; }

/// The hyperparameters of `sgld`, with the defaults of MXNet 2.0.
struct sgld_options {
  double learning_rate = 0.1;
  std::uint64_t seed = 0;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// w -= lr / 2 (clip(s g) + wd w);  w += normal noise of variance lr.
inline auto sgld(sgld_options const& o = {}) {
  return detail::clipped_then_decayed(o) | update::sgld{o.learning_rate, o.seed};
}

/// The hyperparameters of `dcasgd`, with the defaults of MXNet 2.0.
struct dcasgd_options {
  double learning_rate = 0.1, lamda = 0.04;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// h = clip(s g) + wd w;  w -= lr (h + lamda h^2 (w - w_old)).
inline auto dcasgd(dcasgd_options const& o = {}) {
  return detail::clipped_then_decayed(o) | update::delay_compensation{o.lamda} | update::sgd{o.learning_rate};
}

/// The hyperparameters of `dcasgd_momentum`, with the defaults of MXNet 2.0.
struct dcasgd_momentum_options {
  double learning_rate = 0.1, momentum = 0, lamda = 0.04;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// DCASGD with momentum other than 0: m = momentum m - lr (h + lamda h^2 (w - w_old));  w += m.
inline auto dcasgd_momentum(dcasgd_momentum_options const& o = {}) {
  return detail::clipped_then_decayed(o) | update::delay_compensation{o.lamda} |
         rated_momentum{o.learning_rate, o.momentum};
}

/// The hyperparameters of `adam`, with the defaults of MXNet 2.0.
struct adam_options {
  double learning_rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// Bias corrections in the rate.
inline auto adam(adam_options const& o = {}) {
  return detail::clipped_then_decayed(o) |
         folded_correction<update::adam>{{o.learning_rate, o.beta1, o.beta2, o.epsilon}};
}

/// The hyperparameters of `adamw`, with the defaults of MXNet 2.0.
struct adamw_options {
  double learning_rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-6;
  bool correct_bias = true;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// w -= E (m / (sqrt(v) + epsilon) + wd w), with E the corrected rate.
inline auto adamw(adamw_options const& o = {}) {
  return detail::clipped(o) | corrected_decay{{{o.learning_rate, o.beta1, o.beta2, o.epsilon}, o.correct_bias}, o.wd};
}

/// The hyperparameters of `adabelief`, with the defaults of MXNet 2.0.
struct adabelief_options {
  double learning_rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-6;
  bool correct_bias = true;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// Decay inside the clip, bias corrections in the rate.
inline auto adabelief(adabelief_options const& o = {}) {
  return detail::decayed_then_clipped(o) |
         folded_correction<update::adabelief>{{o.learning_rate, o.beta1, o.beta2, o.epsilon}, o.correct_bias};
}

/// The hyperparameters of `adamax`, with the defaults of MXNet 2.0.
struct adamax_options {
  double learning_rate = 0.002, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// Epsilon beside the norm.
inline auto adamax(adamax_options const& o = {}) {
  return detail::clipped_then_decayed(o) |
         update::basic_adamax<update::adamax_epsilon::denominator>{o.learning_rate, o.beta1, o.beta2, o.epsilon};
}

/// The hyperparameters of `nadam`, with the defaults of MXNet 2.0.
struct nadam_options {
  double learning_rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, schedule_decay = 0.004;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// MXNet's product of momenta is shared by all parameters; here each has its own.
inline auto nadam(nadam_options const& o = {}) {
  return detail::clipped_then_decayed(o) |
         update::nadam{o.learning_rate, o.beta1, o.beta2, o.epsilon, o.schedule_decay};
}

/// The hyperparameters of `adagrad`, with the defaults of MXNet 2.0.
struct adagrad_options {
  double learning_rate = 0.01, epsilon = 1e-6;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// g = clip(s g) + wd w;  h += g^2;  w -= lr g / (sqrt(h) + epsilon).
inline auto adagrad(adagrad_options const& o = {}) {
  return detail::clipped_then_decayed(o) | update::adagrad{.learning_rate = o.learning_rate, .epsilon = o.epsilon};
}

/// Of contrib. MXNet takes no decay and tensors of two dimensions.
struct group_adagrad_options {
  double learning_rate = 0.01, epsilon = 1e-6;
  double rescale_grad = 1, clip_gradient = 0;
};
/// h_r += mean over row r of clip(s g)^2;  w -= lr clip(s g) / (sqrt(h_r) + epsilon).
inline auto group_adagrad(group_adagrad_options const& o = {}) {
  using rule = update::basic_group_adagrad<update::epsilon_outside_root>;
  return detail::clipped(o) | rule{.learning_rate = o.learning_rate, .epsilon = o.epsilon};
}

/// The hyperparameters of `rmsprop`, with the defaults of MXNet 2.0.
struct rmsprop_options {
  double learning_rate = 0.001, rho = 0.9, epsilon = 1e-8, clip_weights = 0;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// Epsilon outside the root; weights are clipped where clip_weights is above 0.
inline auto rmsprop(rmsprop_options const& o = {}) {
  return detail::clipped_then_decayed(o) | update::clip_weights{update::rmsprop{o.learning_rate, o.rho, o.epsilon},
                                                                detail::clip(o.clip_weights > 0, o.clip_weights).limit};
}

/// The hyperparameters of `rmsprop_centered`, with the defaults of MXNet 2.0.
struct rmsprop_centered_options {
  double learning_rate = 0.001, rho = 0.9, momentum = 0.9, epsilon = 1e-8, clip_weights = 0;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// RMSProp with centered=True: d = momentum d - lr g / sqrt(n - a^2 + epsilon);  w += d. The third state is -d.
inline auto rmsprop_centered(rmsprop_centered_options const& o = {}) {
  using scale = update::basic_scale_by_centered_rms<update::epsilon_inside_root>;
  return detail::clipped_then_decayed(o) | scale{o.rho, o.epsilon} |
         update::clip_weights{rated_momentum{o.learning_rate, o.momentum},
                              detail::clip(o.clip_weights > 0, o.clip_weights).limit};
}

/// The hyperparameters of `adadelta`, with the defaults of MXNet 2.0.
struct adadelta_options {
  double learning_rate = 1, rho = 0.9, epsilon = 1e-6;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// w -= lr x, with x AdaDelta's step.
inline auto adadelta(adadelta_options const& o = {}) {
  return detail::clipped_then_decayed(o) | update::adadelta{o.learning_rate, o.rho, o.epsilon};
}

/// The hyperparameters of `ftrl`, with the defaults of MXNet 2.0.
struct ftrl_options {
  double learning_rate = 0.1, lamda1 = 0.01, beta = 1;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// wd is the L2 penalty.
inline auto ftrl(ftrl_options const& o = {}) {
  return detail::clipped(o) | update::ftrl{o.learning_rate, o.lamda1, o.wd, o.beta};
}

/// The hyperparameters of `ftml`, with the defaults of MXNet 2.0.
struct ftml_options {
  double learning_rate = 0.0025, beta1 = 0.6, beta2 = 0.999, epsilon = 1e-8;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// Decay outside the clip.
inline auto ftml(ftml_options const& o = {}) {
  return detail::clipped_then_decayed(o) | update::ftml{o.learning_rate, o.beta1, o.beta2, o.epsilon};
}

/// The hyperparameters of `lars`, with the defaults of MXNet 2.0.
struct lars_options {
  double learning_rate = 0.1, momentum = 0, eta = 0.001, epsilon = 1e-8;
  bool adapts = true;
  double wd = 0, rescale_grad = 1, clip_gradient = 0;
};
/// k = eta |w| / (|s g| + wd |w| + epsilon), or 1 if a norm is 0;  m = momentum m - lr k (clip(s g) + wd w);  w += m.
/// The state is -m. Norms are those of each key. Where MXNet goes by names (gamma, beta, bias have k = 1), here keys
/// in a parameter group with adapts = false have.
inline auto lars(lars_options const& o = {}) { return detail::lars(o); }

using mxnet1::lamb;  // the same in both generations
using mxnet1::lamb_options;

/// The hyperparameters of `lans`, with the defaults of MXNet 2.0.
struct lans_options {
  double learning_rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-6;
  double lower_bound = 0, upper_bound = std::numeric_limits<double>::infinity();
  double wd = 0, rescale_grad = 1;
};
/// LANS of s g, wd in its directions. Norms are those of each key; |w| is brought within the bounds. Without
/// clip_gradient, which MXNet applies to the gradient that has length 1.
inline auto lans(lans_options const& o = {}) {
  return update::rescale(o.rescale_grad) |
         update::lans{o.learning_rate, o.beta1, o.beta2, o.epsilon, o.wd, o.lower_bound, o.upper_bound};
}

/// The hyperparameters of `test`, with the defaults of MXNet 2.0.
struct test_options {
  double learning_rate = 0.01;
  double wd = 0, rescale_grad = 1;
};
/// w -= lr (s g + wd w).
inline auto test(test_options const& o = {}) {
  return update::rescale(o.rescale_grad) | update::weight_decay(o.wd) | update::rescale(-o.learning_rate) |
         update::test{};
}

}  // namespace pushpull::compat::mxnet2
