/// @file
/// Gradient noise that fades.
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

/// g = g + noise, normal with variance eta / t^gamma in the t-th update of a key (Neelakantan et al. 2015, section 3, whose
/// t begins at 0; optax.add_noise). The noise is a function of the seed, t and the element's number in the store alone, as
/// sgld's: the same for any number of devices. sgld with the same seed draws the same numbers.
/// An element whose weight and gradient are both exactly 0 gets none: the gaps between keys look like that, and no pass
/// knows them apart, while a norm behind this stage goes over them. So a weight that begins at 0 gets noise from its first
/// gradient other than 0 on, and what is pruned, with a masked gradient, stays pruned; where a model rests on noise alone
/// to leave 0, initialise it with other values. No state.
struct add_noise {
  double eta;
  double gamma;
  std::uint64_t seed;

  static constexpr auto state_names = states();

  explicit add_noise(double eta_, double gamma_ = 0.55, std::uint64_t seed_ = 0)
      : eta(eta_), gamma(gamma_), seed(seed_) {
    validate();
  }

  /// @throws invalid_argument on a negative eta or gamma.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("add_noise: eta", eta);
    c.not_negative("add_noise: gamma", gamma);
    c.any("add_noise: seed", seed);
  }

  template <class A>
  PUSHPULL_HOST_DEVICE detail::noise_scalars<A> prepare(step<A> const& s) const noexcept {
    return {static_cast<A>(cuda::std::sqrt(eta * cuda::std::pow(static_cast<double>(s.t), -gamma))), s.t};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V const& w, V& g) const noexcept {
    V const noise = s.deviation * standard_normal<V>(seed, s.t, s.element);
    g += select(w == 0 && g == 0, V(0), noise);
  }
};

static_assert(GradientTransform<add_noise>);

template <>
inline constexpr std::string_view rule_name<add_noise> = "add_noise";

}  // namespace pushpull::update
