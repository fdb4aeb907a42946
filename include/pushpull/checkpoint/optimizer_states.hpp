/// @file
/// The states of a store's rule and its step counts, to a file and back.
///
/// Needs what safetensors.hpp needs. No umbrella includes it.
#pragma once

#include <pushpull/config.hpp>  // first: it refuses what the library cannot be compiled with

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/checkpoint/load_options.hpp>
#include <pushpull/checkpoint/rank_agreement.hpp>
#include <pushpull/checkpoint/safetensors.hpp>
#include <pushpull/checkpoint/states_format.hpp>
#include <pushpull/checkpoint/states_loader.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/saved_values.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint {

/// A store whose keys have the states of a rule. Models: kv_store with an Updater or `rules`, of one element type or
/// several, any_store.
template <class S>
concept OptimizerStateStore =
    (detail::StoreOfParts<S> || requires(S& store, typename S::key_type const& key, std::string const& name) {
      store.state(key, name);
    }) && requires(S& store, typename S::key_type const& key) {
      store.keys();
      store.shape(key);
      detail::names_of_states(store, key);
      store.state_shape(key, std::string());
      { store.steps(key) } -> std::convertible_to<std::int64_t>;
      store.set_steps(key, std::int64_t{});
      { store.carried_numbers() } -> std::same_as<std::vector<double>>;
      store.owning_ranks();
    } && requires(S& store, typename S::key_type const& key, pushpull::detail::prepared_changes& changes) {
      store.prepare_values(changes, key, pushpull::detail::saved_values());
      store.prepare_carried_numbers(changes, std::span<double const>());
    };

namespace detail {

/// @throws invalid_argument if the store has no rule, which a kv_store says by its type
template <class S>
void expect_rule(char const* call, S& store) {
  if constexpr (requires { store.has_updater(); })
    pushpull::detail::expects<invalid_argument>(store.has_updater(), [&] {
      return std::string(call) + ": the store has no optimizer whose states there were";
    });
}

}  // namespace detail

/// Writes the states of all keys, as tensors "key/state" of the keys' shapes, or lists of their rows or columns, and
/// their step counts, as metadata "key/steps"; the name of the rule, pipe included (see update::describe), as "rule",
/// or where keys have rules of different types as "key/rule"; the persistent values of the rule, as "carried" and of
/// each stage "carried.stage"; and where a key has gathered micro-batches of a step, their sum "key/gradient.sum".
/// Waits for the store. A file of that name is replaced when the new one is complete and on disk.
/// Not written are weights (see write_safetensors), hyperparameters, schedules and parameter groups, and residuals of
/// compressed gradients.
/// In a store of several ranks all of them call it: rank 0 writes the file, and all throw or none.
/// Memory: as much as the states take.
/// @throws file_error; invalid_argument where a swap has put a state in the place of a key's weights
template <OptimizerStateStore S>
void save_optimizer_states(S& store, std::filesystem::path const& path) {
  static constexpr char const* call = "save_optimizer_states";
  detail::expect_rule(call, store);
  auto const ranks = store.owning_ranks();
  if (ranks.group != nullptr) ranks.group->expect_in_step(call);
  std::vector<std::vector<std::byte>> values;
  std::vector<entry> entries;
  metadata_map metadata{{"format", std::string(detail::states_format)},
                        {"version", std::string(detail::states_version)}};
  auto const add = [&](std::string name, std::string dtype, shape const& extents, std::vector<std::byte> bytes) {
    if (ranks.rank != 0) return;
    values.push_back(std::move(bytes));  // moving a vector leaves its elements where they are
    entries.push_back({std::move(name), std::move(dtype), extents, values.back()});
  };
  auto const keys = store.keys();
  detail::key_names const name_of(keys);
  update::rule_description rule;
  if constexpr (!detail::has_rules_of_keys<S>) detail::add_rule(metadata, "", rule = detail::rule_of(store, 0));
  for (auto const& key : keys) {
    detail::expect_weights_in_place(call, store, key);
    std::string const text = name_of(key);
    if constexpr (detail::has_rules_of_keys<S>)
      detail::add_rule(metadata, text + "/", rule = detail::rule_of(store, key));
    for (std::string const& name : detail::names_of_states(store, key))
      add(text + "/" + name, detail::dtype_of(store, key, pushpull::detail::saved_array::state, name),
          store.state_shape(key, name), detail::bytes_of_state(store, key, name));
    metadata[text + "/steps"] = std::to_string(store.steps(key));
    if constexpr (detail::Accumulating<S>)
      if (std::int64_t const count = store.micro_batches(key); count > 0) {
        add(text + std::string(detail::sum_entry), detail::dtype_of(store, key, pushpull::detail::saved_array::sum),
            store.shape(key), detail::bytes_of_sum(store, key));
        metadata[text + std::string(detail::sum_entry)] = std::to_string(count);
      }
  }
  detail::add_carried(metadata, store.carried_numbers(), rule);
  detail::all_or_none(ranks, call, [&] {
    if (ranks.rank == 0) write_safetensors(path, entries, metadata);
  });
}

/// Reads what save_optimizer_states wrote, into a store with the same keys, shapes, rule and state types, on any number
/// of devices: its next step is the one that the saved store would have made, given the same weights and
/// hyperparameters, also amid a step of several micro-batches. A key of which the file has no micro-batches forgets
/// those that it has gathered. What may differ, and only if it is asked for, see load_options.
/// In a store of several ranks all of them call it and read the file; all load it or none.
/// Keys come first: `init`, or parameter_store::materialize. Waits for the store. No other thread may use the store
/// meanwhile.
/// @returns what was loaded, what was missing in the file, and what of it was left
/// @throws file_error if the file is damaged or foreign, or speaks of another rule (the message has both names), of
/// other keys, states, shapes or types, or of a step count that is negative or above max_steps; invalid_argument where
/// a swap has put a state in the place of a key's weights; std::bad_alloc and out_of_memory. The store then holds what
/// it held. Values are not looked at: rules take any number as a value that persists
template <OptimizerStateStore S>
load_report load_optimizer_states(S& store, std::filesystem::path const& path, load_options const& options = {}) {
  static constexpr char const* call = "load_optimizer_states";
  detail::expect_rule(call, store);
  auto const ranks = store.owning_ranks();
  if (ranks.group != nullptr) ranks.group->expect_in_step(call);
  std::optional<safetensors_file> file;
  std::optional<detail::states_loader<S, safetensors_file>> loader;
  pushpull::detail::prepared_changes changes;
  detail::all_or_none(ranks, call, [&] {
    file.emplace(path);
    detail::expect_states_format(*file);
    loader.emplace(store, *file, options);
    loader->check();
    loader->read([](entry const& e, auto const&) { return pushpull::detail::saved_range{e.bytes}; });
    loader->prepare(changes);
  });
  changes.commit();
  return loader->report();
}

}  // namespace pushpull::checkpoint
