/// @file
/// How gradients travel from their sources to the owner of a slice.
#pragma once

namespace pushpull {

/// Needs:  policy_kind = compressor_tag; a nested template encoded_type<T>: what one gradient element becomes on its
///         way. The pass decodes it. If that is a code (see compress/code.hpp): unit(), what a unit stands
///         for; quantize(V& r), which takes codes from a pack of residuals; default constructible.
/// Models: compress::none, compress::two_bit, compress::one_bit.
template <class C>
concept Compressor = requires {
  typename C::policy_kind;
  typename C::template encoded_type<float>;
};

}  // namespace pushpull
