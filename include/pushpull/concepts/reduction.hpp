/// @file
/// The concepts of operations that combine the gradients of several sources.
#pragma once

#include <concepts>
#include <type_traits>

#include <pushpull/config.hpp>
#include <pushpull/registers/pack.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// An associative operation over the K gradients of a key, elementwise, in source order.
/// Needs:  template <class V> V operator()(V a, V b) const noexcept, PUSHPULL_HOST_DEVICE: combines two;
///         template <class V> V finish(V total, int k) const noexcept, PUSHPULL_HOST_DEVICE: called once with the
///         count of sources; trivially copyable and default constructible; `policy_kind` is `reduction_tag`.
/// Models: reduce::sum, reduce::mean, reduce::max.
template <class R>
concept Reduction =
    std::is_trivially_copyable_v<R> && std::default_initializable<R> && requires(R const& reduce, pack<float> v) {
      typename R::policy_kind;
      { reduce(v, v) } noexcept -> std::same_as<pack<float>>;
      { reduce.finish(v, 1) } noexcept -> std::same_as<pack<float>>;
    };

/// A Reduction whose operation is addition: rows that a row-sparse gradient does not list change nothing.
/// Needs:  a static constant `adds`, true.
/// Models: reduce::sum, reduce::mean.
template <class R>
concept AdditiveReduction = Reduction<R> && requires { requires R::adds; };

}  // namespace pushpull
