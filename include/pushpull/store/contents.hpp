/// @file
/// The keys and rules of a store: what its operations read and write.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/step_control.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/schedule/reentrance.hpp>
#include <pushpull/store/key_options.hpp>
#include <pushpull/store/keyed_state.hpp>
#include <pushpull/store/keys/key_table.hpp>
#include <pushpull/store/keys/topology.hpp>
#include <pushpull/store/parameter_groups.hpp>
#include <pushpull/tensor/buffer.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

template <class Part>
void validate_policy(Part const& part) {
  if constexpr (requires { part.validate(); }) part.validate();
}

/// Keys, rules and clocks of a store. Additions are made first, where they may fail, and then committed.
/// @tparam Types  A kv_store_types.
template <class Types>
struct store_contents : keyed_state<typename Types::table_type> {
  using base = keyed_state<typename Types::table_type>;
  using device_type = typename Types::device_type;
  using rule_type = typename Types::rule_type;
  using updater_type = typename Types::updater_type;
  using table_type = typename Types::table_type;
  using record = typename Types::record;
  using key_view = typename Types::key_view;
  using control_type = control<device_type, rule_type, typename Types::step_types>;
  using groups_type = parameter_groups<updater_type, key_view>;

  using base::devices, base::keys, base::mutex;
  groups_type groups;                  ///< A rule per parameter group.
  std::vector<control_type> controls;  ///< Per device: rules and clocks. None without a rule.

  /// @param number     Among the stores that share the directory. @param placement  Of keys. @throws invalid_argument, duplicate_device
  store_contents(std::vector<device_type> const& device_list, topology const& owners, rank_group* ranks,
                 updater_type const& updater, std::shared_ptr<typename table_type::directory_type> directory,
                 std::size_t number, placement_rule const& placement)
      : base(device_list, owners, ranks, std::move(directory), number, placement, state_count<rule_type>,
             MaySkip<rule_type>),
        groups(updater) {
    expects<invalid_argument>(!device_list.empty(),
                              [] { return std::string("kv_store: at least 1 device expected, got none"); });
    for (auto a = device_list.begin(); a != device_list.end(); ++a)
      expects<duplicate_device>(std::find(std::next(a), device_list.end(), *a) == device_list.end(), [&] {
        return "kv_store: device " + std::string(a->name()) + " stands twice in the list";
      });
    detail::validate_policy(updater);
    if constexpr (Types::has_updater)
      for (device_type const& device : device_list) controls.emplace_back(device, *groups.rules());
  }

  /// Rules that have been made and are not in force. No key and no other rule is added meanwhile.
  struct new_rules {
    std::unique_ptr<unique_guard> lock;
    rule_list<updater_type> rules;
    std::vector<buffer<device_type>> room;    // on each device
    typename groups_type::predicate belongs;  // of a new group
    std::vector<record*> members;
  };
  new_rules prepare_rule(std::size_t group, updater_type const& updater) {
    detail::validate_policy(updater);
    groups.expect("set_hyperparameters", group);
    return make_rules(group, updater);
  }
  /// A group with the keys, present and to come, for which `belongs` holds.
  new_rules prepare_group(typename groups_type::predicate belongs, updater_type const& updater) {
    detail::validate_policy(updater);
    expects<invalid_argument>(bool{belongs}, [] { return std::string("add_group: the predicate is empty"); });
    auto result = make_rules(std::nullopt, updater);
    keys.for_each([&](record& r) {
      if (belongs(key_view(r.key))) result.members.push_back(&r);
    });
    groups.make_room();
    result.belongs = std::move(belongs);
    return result;
  }
  /// Puts them in force. For a group, between the operations on all keys.
  void commit(new_rules& made) {
    if constexpr (Types::has_updater)
      for (std::size_t n = 0; n < devices().size(); ++n)
        controls[n].set(devices()[n], *made.rules, std::move(made.room[n]));
    auto const number = static_cast<std::int32_t>(made.rules->size() - 1);
    groups.set(std::move(made.rules));
    if (made.belongs) groups.claim(std::move(made.belongs));
    for (record* const r : made.members) {
      for (std::size_t n = 0; n < controls.size(); ++n) controls[n].assign(devices()[n], r->index, number);
      r->parameter_group = number;
    }
  }

  /// Keys that have been made and are not among the store's. No other key is added meanwhile.
  struct new_keys {
    std::unique_ptr<unique_guard> lock;
    typename table_type::addition keys;
  };
  /// All that may fail of `init`, but for room in `controls`. Names and values must stay until `commit`.
  template <class View>
  new_keys prepare_keys(std::span<key_view const> names, std::span<View const> values, bool resident,
                        std::vector<bool> const& needs_gradient, key_options options = {}) {
    auto lock = std::make_unique<unique_guard>(mutex);
    new_keys result{std::move(lock), keys.prepare(names, values, resident, needs_gradient, options)};
    result.keys.for_each([&](record& r) { r.parameter_group = groups.of(key_view(r.key)); });
    return result;
  }
  void commit(new_keys& made) {
    made.keys.for_each([&](record& r) {
      for (std::size_t n = 0; n < controls.size(); ++n) {
        controls[n].set_elements(devices()[n], r.index, r.size());
        if (r.parameter_group != 0) controls[n].assign(devices()[n], r.index, r.parameter_group);
      }
    });
    keys.commit(made.keys);
  }
  /// Whether each device has as many clocks.
  bool has_room(std::size_t clocks) const {
    return std::all_of(controls.begin(), controls.end(), [&](auto const& c) { return c.has_room(clocks); });
  }
  /// No operation may see the clocks move.
  void make_room(std::size_t clocks) {
    for (std::size_t n = 0; n < controls.size(); ++n) controls[n].reserve(devices()[n], clocks);
  }

 private:
  /// @param group  None for a new one.
  new_rules make_rules(std::optional<std::size_t> group, updater_type const& updater) {
    new_rules result;
    result.lock = std::make_unique<unique_guard>(mutex);
    result.rules = groups.with(group ? *group : groups.rules()->size(), updater);
    if constexpr (Types::has_updater)
      for (std::size_t n = 0; n < devices().size(); ++n)
        result.room.push_back(controls[n].room_for(devices()[n], result.rules->size()));
    expects<capture_error>(
        !this->captured.any() ||
            std::all_of(result.room.begin(), result.room.end(), [](auto const& b) { return b.bytes() == 0; }),
        [] {
          return std::string(
                     "add_group: captured steps read hyperparameters in memory that has no room for another group: "
                     "add ") +
                 "all groups before the capture, or call discard_captures when its graphs are not launched any more";
        });
    return result;
  }
};

}  // namespace pushpull::detail
