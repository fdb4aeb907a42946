/// @file
/// What may differ between a store and the checkpoint that it is given, and what came of it.
#pragma once

#include <string>
#include <vector>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint {

/// What load_optimizer_states accepts beside a file of the same keys and rule. By default nothing.
struct load_options {
  /// The store has keys that the file does not have: they keep what they hold.
  bool new_keys = false;
  /// The file has keys that the store does not have: they are left.
  bool gone_keys = false;
  /// The rules differ in stages without states of each key: a loss scale that was added, a clip, a rescale. What such a
  /// stage keeps from step to step is loaded where both have it; a new stage keeps what it holds. The stages with states are
  /// the same, in the same order.
  bool other_stages = false;
  /// The rules may differ in everything but the names and shapes of the states that the store needs: adam's for adamw. Also
  /// for files that name no rule, from versions of this library that wrote no names.
  bool other_rule = false;
  /// False: sums of micro-batches in the file are left. Every key that is loaded then begins a step.
  bool micro_batches = true;
};

/// What load_optimizer_states did. Keys are named as in the file, stages that keep numbers from step to step as in the rule.
struct load_report {
  std::vector<std::string> loaded;  ///< Keys whose states and step counts are those of the file.
  /// Keys, and stages, of the store that the file does not have: they are as they were.
  std::vector<std::string> missing;
  std::vector<std::string> left;  ///< Keys, stages, states and sums of the file that the store took nothing of.
};

}  // namespace pushpull::checkpoint
