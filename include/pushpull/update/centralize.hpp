/// @file
/// Gradient centralization.
#pragma once

#include <string_view>

#include <cuda/std/array>
#include <pushpull/concepts/factored.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/rule_name.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Yong et al. 2020, as optax.centralize: g = g - its mean over all dimensions but the first, in tensors of two dimensions
/// or more; others stay. Costs a phase that reads every gradient once more. No state.
struct centralize {
  static constexpr auto state_names = states();
  static constexpr factors factored{};
  static constexpr bool per_tensor = true;
  using sums_type = cuda::std::array<double, 0>;

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE V pre_reduce(S const&, V const&, V const& g) const noexcept {
    return g;
  }

  template <class A>
  PUSHPULL_HOST_DEVICE matrix<A> prepare(factored_step<A> const& s, sums_type const&) const noexcept {
    return s.numbers(0, 1);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(matrix_numbers<A> const& s, V const&, V& g) const noexcept {
    if (s.of_matrix()) g -= s.template rows<V>(A(0));
  }
};

static_assert(GradientTransform<centralize> && Factored<centralize>);

template <>
inline constexpr std::string_view rule_name<centralize> = "centralize";

}  // namespace pushpull::update
