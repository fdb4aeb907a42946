/// @file
/// The optimizers of DJL, with the names and defaults of its builders' options, as pipes of this library's stages. A
/// negative `clip_grad` means no clip. To change hyperparameters, give `set_hyperparameters` a new one. In the
/// comments s is rescale_grad, wd weight_decays and lr learning_rate, the value of DJL's tracker in this step.
#pragma once

#include <pushpull/compat/gradient.hpp>
#include <pushpull/compat/rule.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/adadelta.hpp>
#include <pushpull/update/adagrad.hpp>
#include <pushpull/update/pipeline.hpp>
#include <pushpull/update/rmsprop.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/sgd.hpp>
#include <pushpull/update/transform.hpp>
#include <pushpull/update/wrapper.hpp>

namespace pushpull::inline PUSHPULL_ABI::compat::djl {

/// Where decay is added to the gradient.
enum class decay_order { before_clip, after_clip };

namespace detail {

using compat::detail::clip;

/// clip(s g).
template <class Options>
auto clipped(Options const& o) {
  return update::rescale(o.rescale_grad) | clip(o.clip_grad >= 0, o.clip_grad);
}

/// clip(s g) + wd w, or clip(s g + wd w).
template <decay_order Order = decay_order::after_clip, class Options>
auto gradient(Options const& o) {
  if constexpr (Order == decay_order::after_clip) {
    return clipped(o) | update::weight_decay(o.weight_decays);
  } else {
    return update::rescale(o.rescale_grad) | update::weight_decay(o.weight_decays) |
           clip(o.clip_grad >= 0, o.clip_grad);
  }
}

}  // namespace detail

/// The hyperparameters of `sgd`, with the defaults of DJL, which has none of the rate.
struct sgd_options {
  double learning_rate;
  double weight_decays = 0, rescale_grad = 1, clip_grad = -1;
};
/// w = (1 - lr wd) w - lr clip(s g). @throws invalid_argument unless the rate is above 0
inline auto sgd(sgd_options const& o) {
  update::detail::expects_positive("djl::sgd: learning_rate", o.learning_rate);
  return detail::gradient(o) | update::sgd{o.learning_rate};
}

/// The hyperparameters of `sgd_momentum`, with the defaults of DJL, which has none of the rate.
struct sgd_momentum_options {
  double learning_rate, momentum;
  double weight_decays = 0, rescale_grad = 1, clip_grad = -1;
};
/// SGD with momentum other than 0: m = momentum m - lr (clip(s g) + wd w);  w += m. The state is -m.
/// @throws invalid_argument unless the rate is above 0
inline auto sgd_momentum(sgd_momentum_options const& o) {
  update::detail::expects_positive("djl::sgd_momentum: learning_rate", o.learning_rate);
  return detail::gradient(o) | rated_momentum{o.learning_rate, o.momentum};
}

/// The hyperparameters of `nag`, with the defaults of DJL, which has none of the rate and the momentum.
struct nag_options {
  double learning_rate, momentum;
  double weight_decays = 0, rescale_grad = 1, clip_grad = -1;
};
/// d = lr (clip(s g) + wd w);  w += momentum^2 m - (1 + momentum) d;  m = momentum m - d. The state is -m.
/// @throws invalid_argument unless rate and momentum are above 0, as DJL
inline auto nag(nag_options const& o) {
  update::detail::expects_positive("djl::nag: learning_rate", o.learning_rate);
  update::detail::expects_positive("djl::nag: momentum", o.momentum);
  return detail::gradient(o) | rated_nesterov{o.learning_rate, o.momentum};
}

/// The hyperparameters of `adam`, with the defaults of DJL.
struct adam_options {
  double learning_rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decays = 0, rescale_grad = 1, clip_grad = -1;
};
/// Bias corrections in the rate. DJL's order depends on its engine: on MXNet the clip follows the decay, on PyTorch it
/// stands before it.
template <decay_order Order = decay_order::before_clip>
auto adam(adam_options const& o = {}) {
  return detail::gradient<Order>(o) | folded_correction<update::adam>{{o.learning_rate, o.beta1, o.beta2, o.epsilon}};
}

/// The hyperparameters of `adamw`, with the defaults of DJL.
struct adamw_options {
  double learning_rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decays = 0.01, rescale_grad = 1, clip_grad = -1;
};
/// Adam of clip(s g), after w = (1 - lr wd) w with the rate as it is, uncorrected.
inline auto adamw(adamw_options const& o = {}) {
  using rule = folded_correction<update::adam>;
  return detail::clipped(o) | rated_decay{rule{{o.learning_rate, o.beta1, o.beta2, o.epsilon}}, o.weight_decays};
}

/// The hyperparameters of `adagrad`, with the defaults of DJL.
struct adagrad_options {
  double learning_rate = 0.001, epsilon = 1e-8;
  double rescale_grad = 1, clip_grad = -1;
};
/// h += clip(s g)^2;  w -= lr clip(s g) / sqrt(h + epsilon). DJL's refuses decay.
inline auto adagrad(adagrad_options const& o = {}) {
  using rule = update::basic_adagrad<update::epsilon_inside_root>;
  return detail::clipped(o) | rule{.learning_rate = o.learning_rate, .epsilon = o.epsilon};
}

/// The hyperparameters of `rmsprop`, with the defaults of DJL.
struct rmsprop_options {
  double learning_rate = 0.001, rho = 0.9, epsilon = 1e-8;
  double weight_decays = 0, rescale_grad = 1, clip_grad = -1;
};
/// Decay inside the clip, epsilon inside the root.
inline auto rmsprop(rmsprop_options const& o = {}) {
  using scale = update::basic_scale_by_rms<update::epsilon_inside_root>;
  return detail::gradient<decay_order::before_clip>(o) | scale{o.rho, o.epsilon} | update::sgd{o.learning_rate};
}

/// The hyperparameters of `rmsprop_centered`, with the defaults of DJL.
struct rmsprop_centered_options {
  double learning_rate = 0.001, rho = 0.9, momentum = 0.9, epsilon = 1e-8;
  double weight_decays = 0, rescale_grad = 1, clip_grad = -1;
};
/// RMSProp with centered=true: d = momentum d - lr g / sqrt(n - a^2 + epsilon);  w += d. The third state is -d.
inline auto rmsprop_centered(rmsprop_centered_options const& o = {}) {
  using scale = update::basic_scale_by_centered_rms<update::epsilon_inside_root>;
  return detail::gradient<decay_order::before_clip>(o) | scale{o.rho, o.epsilon} |
         rated_momentum{o.learning_rate, o.momentum};
}

/// The hyperparameters of `adadelta`, with the defaults of DJL.
struct adadelta_options {
  double rho = 0.9, epsilon = 1e-8;
  double weight_decays = 0, rescale_grad = 1, clip_grad = -1;
};
/// AdaDelta of clip(s g) + wd w; there is no learning rate. A limit of 0 clips nothing here, as in DJL.
inline auto adadelta(adadelta_options const& o = {}) {
  return update::rescale(o.rescale_grad) | detail::clip(o.clip_grad > 0, o.clip_grad) |
         update::weight_decay(o.weight_decays) | update::adadelta{1, o.rho, o.epsilon};
}

}  // namespace pushpull::compat::djl
