/// @file
/// Stochastic gradient descent, plain.
#pragma once

#include <string_view>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// w = w - learning_rate g. No state; 12 bytes per float parameter.
struct sgd {
  double learning_rate = 1e-2;

  static constexpr auto state_names = states();

  /// @throws invalid_argument on a negative or infinite learning rate.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("sgd: learning_rate", learning_rate);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V& w, V const& g) const noexcept {
    w -= learning_rate * g;
  }
};

static_assert(Updater<sgd>);

template <>
inline constexpr std::string_view rule_name<sgd> = "sgd";

}  // namespace pushpull::update
