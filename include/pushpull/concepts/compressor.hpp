/// @file
/// How gradients travel from their sources to the owner of a slice.
#pragma once

#include <concepts>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Needs:  policy_kind = compressor_tag; default constructible;
///         a template takes<T>, a bool constant: whether it knows gradients of element type T;
///         a nested template encoded_type<T>: what one gradient element becomes on its way. The pass decodes it. Where
///         that is not T, a compress::encoder<C, T, D> says how (see compress/encode.hpp). There is one already for a
///         code (see registers/code.hpp), if C has unit(), what a unit stands for, and quantize(V& r) const noexcept, which
///         takes codes from a pack of residuals.
/// Models: compress::none, compress::cast<E>, compress::top_k, compress::two_bit, compress::one_bit.
template <class C>
concept Compressor = std::default_initializable<C> && requires {
  typename C::policy_kind;
  typename C::template encoded_type<float>;
  { C::template takes<float> } -> std::convertible_to<bool>;
};

}  // namespace pushpull
