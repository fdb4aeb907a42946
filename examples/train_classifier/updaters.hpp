/// @file
/// From the name of an updater to its type: every rule gets its own store, and so its own fused kernel.
#pragma once

#include <pushpull/pushpull.hpp>

#include "options.hpp"

namespace train_classifier {

/// Calls `use` with the chosen rule behind a stage that turns the summed gradient into the mean over the batch.
/// Adam divides by the gradient's size, down to `epsilon`: at 1e-8 a gradient that is nothing but rounding errors would
/// still move its weight, and the result would depend on the number of devices.
/// @param use  use(rule, policies...), where the policies are those of the rule's store.
template <class Use>
void with_updater(options const& chosen, Use use) {
  namespace update = pushpull::update;
  namespace codec = pushpull::codec;
  auto const mean = update::rescale(1.0 / static_cast<double>(chosen.batch));
  auto const rate = chosen.learning_rate;
  switch (chosen.updater) {
    case updater_name::sgd: return use(mean | update::sgd{.learning_rate = rate});
    case updater_name::momentum: return use(mean | update::momentum{.learning_rate = rate, .momentum = 0.9});
    case updater_name::adam8:  // 16.06 bytes per parameter in the place of 28
      return use(mean | update::adam{.learning_rate = rate, .epsilon = 1e-6},
                 pushpull::state_codecs<256, codec::linear, codec::of<"exp_avg_sq", codec::unsigned_float8>>{});
    case updater_name::adam:  // without decay adamw is adam: one store less to compile
    case updater_name::adamw:
      return use(mean | update::adamw{.learning_rate = rate,
                                      .epsilon = 1e-6,
                                      .weight_decay = chosen.updater == updater_name::adamw ? 0.01 : 0});
  }
}

}  // namespace train_classifier
