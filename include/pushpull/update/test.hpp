/// @file
/// MXNet's optimizer for tests of stores.
#pragma once

#include <string_view>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/rule_name.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// w = w + g, and a copy of w as state: what a store did with its gradients can be read off its weights. Rescaled by a
/// stage before it. 20 bytes per float parameter.
struct test {
  static constexpr auto state_names = states("weight_copy");

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V& w, V const& g, V& copy) const noexcept {
    w += g;
    copy = w;
  }
};

static_assert(Updater<test>);

template <>
inline constexpr std::string_view rule_name<test> = "test";

}  // namespace pushpull::update
