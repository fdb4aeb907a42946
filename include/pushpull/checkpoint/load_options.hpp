/// @file
/// The permitted differences between a store and its checkpoint, and the report of a load.
#pragma once

#include <string>
#include <vector>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint {

/// The differences from the keys and the rule of a store that load_optimizer_states accepts. By default none.
struct load_options {
  /// The store has keys that the file does not have: they keep their contents.
  bool new_keys = false;
  /// The file has keys that the store does not have: the load skips them.
  bool gone_keys = false;
  /// The rules differ in stages without states of each key: a loss scale that was added, a clip, a rescale. Persistent
  /// values of such a stage are loaded if both rules have the stage; a new stage keeps its values. The stages with
  /// states are the same, in the same order.
  bool other_stages = false;
  /// The rules may differ in everything but the names and shapes of the states that the store needs: adam's for adamw.
  /// Also for files that name no rule, from versions of this library that wrote no names.
  bool other_rule = false;
  /// False: the load skips sums of micro-batches in the file. Every key that is loaded then begins a step.
  bool micro_batches = true;
};

/// The report of load_optimizer_states. Keys are named as in the file, stages with persistent values as in the rule.
struct load_report {
  std::vector<std::string> loaded;  ///< Keys whose states and step counts are those of the file.
  /// Keys, and stages, of the store that the file does not have: they are as they were.
  std::vector<std::string> missing;
  std::vector<std::string> left;  ///< Keys, stages, states and sums of the file that the store took nothing of.
};

}  // namespace pushpull::checkpoint
