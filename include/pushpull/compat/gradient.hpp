/// @file
/// The preparation of a gradient in other libraries' optimizers: rescale, clip and add decay, in two orders.
#pragma once

#include <limits>

#include <pushpull/config.hpp>
#include <pushpull/update/pipeline.hpp>
#include <pushpull/update/transform.hpp>

namespace pushpull::inline PUSHPULL_ABI::compat::detail {

/// Clips nothing where clipping is off, so that a pipe's type does not depend on its options.
inline update::clip_value clip(bool on, double limit) {
  return update::clip_value(on ? limit : std::numeric_limits<double>::infinity());
}

/// clip(rescale_grad g): decay plays no part, or the rule decays. MXNet's kernels take a limit of 0 or less for none.
template <class Options>
auto clipped(Options const& o) {
  return update::rescale(o.rescale_grad) | clip(o.clip_gradient > 0, o.clip_gradient);
}

/// clip(rescale_grad g) + wd w.
template <class Options>
auto clipped_then_decayed(Options const& o) {
  return clipped(o) | update::weight_decay(o.wd);
}

/// clip(rescale_grad g + wd w).
template <class Options>
auto decayed_then_clipped(Options const& o) {
  return update::rescale(o.rescale_grad) | update::weight_decay(o.wd) | clip(o.clip_gradient > 0, o.clip_gradient);
}

}  // namespace pushpull::compat::detail
