/// @file
/// Gradients travel as they are.
#pragma once

#include <pushpull/concepts/compressor.hpp>
#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::compress {

/// No compression: the default.
struct none {
  using policy_kind = compressor_tag;
  template <class T>
  static constexpr bool takes = true;
  template <class T>
  using encoded_type = T;
};

static_assert(Compressor<none>);

}  // namespace pushpull::compress
