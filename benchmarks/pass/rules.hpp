/// @file
/// The rules as users write them without us: for packs in a loop of their own, and for one element at a time.
#pragma once

#include <cmath>
#include <cstddef>
#include <utility>

#include <pushpull/pushpull.hpp>

namespace pushpull::bench {

inline float root(float x) { return std::sqrt(x); }
template <class Batch>
Batch root(Batch const& x) {
  return detail::simd_sqrt(x);
}

/// Hand-written counterparts of `Rule`; `V` is a float or a batch of floats.
template <class Rule>
struct by_hand;

template <>
struct by_hand<update::sgd> {
  static constexpr std::size_t states = 0;
  float learning_rate = 1e-3F;
  template <class V>
  void operator()(V& w, V g) const {
    w -= learning_rate * g;
  }
};

template <>
struct by_hand<update::momentum> {
  static constexpr std::size_t states = 1;
  float learning_rate = 1e-3F, momentum = 0.9F;
  template <class V>
  void operator()(V& w, V g, V& b) const {
    b = momentum * b + g;
    w -= learning_rate * b;
  }
};

template <>
struct by_hand<update::adam> {
  static constexpr std::size_t states = 2;
  float step_size = 1e-3F, beta1 = 0.9F, beta2 = 0.999F, epsilon = 1e-8F;
  template <class V>
  void operator()(V& w, V g, V& m, V& v) const {
    m = beta1 * m + (1 - beta1) * g;
    v = beta2 * v + (1 - beta2) * g * g;
    w -= step_size * m / (root(v) + epsilon);
  }
};

template <>
struct by_hand<update::adamw> : by_hand<update::adam> {
  float decay = 1 - 1e-3F * 1e-2F;
  template <class V>
  void operator()(V& w, V g, V& m, V& v) const {
    w *= decay;
    by_hand<update::adam>::operator()(w, g, m, v);
  }
};

/// As the library's rule is at step t, with its default hyperparameters.
inline by_hand<update::sgd> at_step(by_hand<update::sgd>, int) { return {1e-2F}; }
inline by_hand<update::momentum> at_step(by_hand<update::momentum>, int) { return {1e-2F, 0.9F}; }
template <class Adam>
Adam at_step(Adam rule, int t) {
  double const root = std::sqrt(1 - std::pow(0.999, t));
  rule.step_size = static_cast<float>(1e-3 * root / (1 - std::pow(0.9, t)));
  rule.epsilon = static_cast<float>(1e-8 * root);
  return rule;
}

/// rule(w, g, state(0), state(1), ...)
template <class Rule, class V, class F, std::size_t... K>
[[gnu::always_inline]] inline void call(Rule const& rule, V& w, V const& g, F const& state, std::index_sequence<K...>) {
  rule(w, g, state(K)...);
}
template <class Rule, class V, class F>
[[gnu::always_inline]] inline void call(Rule const& rule, V& w, V const& g, F const& state) {
  call(rule, w, g, state, std::make_index_sequence<Rule::states>{});
}

/// Adam as a user of the library writes it.
struct user_adam {
  double learning_rate = 1e-3, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  static constexpr auto state_names = states("m", "v");

  template <class S, class V>
  PUSHPULL_HOST_DEVICE void operator()(S const&, V& w, V g, V& m, V& v) const noexcept {
    m = beta1 * m + (1 - beta1) * g;
    v = beta2 * v + (1 - beta2) * g * g;
    w -= learning_rate * m / (sqrt(v) + epsilon);
  }
};

}  // namespace pushpull::bench
