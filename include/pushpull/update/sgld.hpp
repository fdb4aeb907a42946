/// @file
/// Stochastic gradient Langevin dynamics: descent that samples the posterior.
#pragma once

#include <cstdint>
#include <string_view>

#include <cuda/std/cmath>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/random.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Welling & Teh 2011, eq. 4, for g the gradient of the negative log posterior: w = w - learning_rate g / 2 + noise,
/// noise normal with variance learning_rate. The noise is a function of the seed, t and the element's number in the
/// store alone: the same for any number of devices. Keys are numbered in the order in which they were registered.
/// No state; 12 bytes per float parameter.
struct sgld {
  double learning_rate = 1e-2;
  std::uint64_t seed = 0;

  static constexpr auto state_names = states();

  /// @throws invalid_argument on a negative rate.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("sgld: learning_rate", learning_rate);
    c.any("sgld: seed", seed);
  }

  template <class A>
  PUSHPULL_HOST_DEVICE detail::noise_scalars<A> prepare(step<A> const& s) const noexcept {
    return {static_cast<A>(cuda::std::sqrt(learning_rate)), s.t};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g) const noexcept {
    w += s.deviation * standard_normal<V>(seed, s.t, s.element) - learning_rate / 2 * g;
  }
};

static_assert(Updater<sgld>);

template <>
inline constexpr std::string_view rule_name<sgld> = "sgld";

}  // namespace pushpull::update
