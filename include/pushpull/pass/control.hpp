/// @file
/// The memory of a rule on one device, beside the states of keys: hyperparameters, clocks, sums over keys.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/factored.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/step_control.hpp>
#include <pushpull/tensor/buffer.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Later work of each device runs after what every other was given so far.
template <Device D>
void join(std::vector<D> const& devices) {
  for (D const& later : devices)
    for (D const& earlier : devices)
      if (!(later == earlier)) later.wait_for(earlier);
}

/// The memory of a rule on one device, beside the states of keys: hyperparameters, clocks, sums over keys.
template <Device D, class Rule, class Types>
class control {
 public:
  using clock_type = pass::clock_of<Rule, Types>;
  using shared_type = pass::shared_sums<Rule>;

  control(D const& device, std::vector<Rule> const& rules) : libraries_(device) {
    set(device, rules, room_for(device, rules.size()));
    if constexpr (pass::detail::has_shared_sums<Rule>) {
      shared_ = buffer<D>(device, sizeof(shared_type));
      set_shared(device, initial_sums(rules.front()));
    }
  }

  /// Where the pass finds the rules' hyperparameters: with the caller if it runs on the host; else on the device, whose
  /// stream sets them in order.
  Rule const* rules(Rule const* given) const {
    if constexpr (HostDevice<D>) return given;
    return static_cast<Rule const*>(rules_.data());
  }
  clock_type* clocks() const { return static_cast<clock_type*>(clocks_.data()); }
  /// Sums over all keys and persistent values, or null.
  shared_type* shared() const { return static_cast<shared_type*>(shared_.data()); }
  void set_shared(D const& device, sums_t<Rule> const& sums) {
    device.for_each(1, pass::set_value<shared_type>{shared(), {sums, false}});
  }

  /// Memory for as many rules, where they need more than there is.
  buffer<D> room_for([[maybe_unused]] D const& device, [[maybe_unused]] std::size_t rules) const {
    if constexpr (!HostDevice<D>)
      if (rules_.bytes() < rules * sizeof(Rule)) return buffer<D>(device, rules * sizeof(Rule));
    return {};
  }
  /// New hyperparameters, from the next step on. Nothing may be using the old ones if there are more than before.
  /// @param room  What room_for gave.
  void set(D const& device, std::vector<Rule> const& rules, [[maybe_unused]] buffer<D> room) {
    if constexpr (!HostDevice<D>) {
      if (room.bytes() > 0) rules_ = std::move(room);
      auto* const to = static_cast<Rule*>(rules_.data());
      for (std::size_t i = 0; i < rules.size(); ++i) device.for_each(1, pass::set_value<Rule>{to + i, rules[i]});
    }
  }
  /// Key number `key` is in parameter group number `group` from the next step on.
  void assign(D const& device, std::int32_t key, std::int32_t group) {
    device.for_each(1, pass::set_value<std::int32_t>{&clocks()[key].parameter_group, group});
    if constexpr (keeps_groups) groups_[static_cast<std::size_t>(key)] = group;
  }

  /// The parameter group of key number `key`, for steps that are enqueued from now on.
  std::int32_t group_of(std::int32_t key) const
    requires transforms_matrices<Rule>
  {
    if constexpr (keeps_groups) return groups_[static_cast<std::size_t>(key)];
    return clocks()[key].parameter_group;
  }
  /// After the clocks of a plan have counted a step: the host follows. It waits where the device may skip steps, since only
  /// the device knows which it did.
  template <class Plan>
  void count_steps([[maybe_unused]] D const& device, [[maybe_unused]] Plan const& plan) const {
    if constexpr (!keeps_steps) {
    } else if constexpr (MaySkip<Rule>) {
      if (plan.empty()) return;  // no matrix is here
      auto* const gathered = static_cast<std::int64_t*>(gathered_.data());
      plan.gather_steps(device, clocks(), gathered);
      std::size_t n = 0;
      plan.for_each_clock([&](std::int32_t) { ++n; });
      device.copy(read_.data(), gathered, n * sizeof(std::int64_t));
      device.synchronize();
      n = 0;
      plan.for_each_clock([&](std::int32_t clock) { steps_[static_cast<std::size_t>(clock)] = read_[n++]; });
    } else {
      plan.for_each_clock([&](std::int32_t clock) { ++steps_[static_cast<std::size_t>(clock)]; });
    }
  }
  /// How many steps the clock has counted with those that are enqueued.
  std::int64_t steps_of(std::int32_t clock) const
    requires keeps_matrices<Rule>
  {
    if constexpr (keeps_steps) return steps_[static_cast<std::size_t>(clock)];
    return clocks()[clock].t;
  }
  /// The clock goes on from step number t, on the device and on the host. @param copy  copy(std::int64_t*) writes t on the device.
  template <class F>
  void set_steps(std::int32_t clock, [[maybe_unused]] std::int64_t t, F const& copy) const {
    copy(&clocks()[clock].t);
    if constexpr (keeps_steps) steps_[static_cast<std::size_t>(clock)] = t;
  }

  /// What the rule's stages transform matrices with.
  factored_libraries<Rule, D> const& libraries() const { return libraries_; }
  /// Scratch of these, of a device whose steps are enqueued one after another.
  buffer<D>& scratch() const
    requires(!HostDevice<D>)
  {
    return scratch_;
  }

  /// Key number `key` has a tensor of so many elements.
  void set_elements([[maybe_unused]] D const& device, [[maybe_unused]] std::int32_t key,
                    [[maybe_unused]] std::int64_t elements) {
    if constexpr (is_per_tensor<Rule>)
      device.for_each(1, pass::set_value<std::int64_t>{&clocks()[key].elements, elements});
  }

  /// Whether there is room for `keys` clocks.
  bool has_room(std::size_t keys) const { return keys * sizeof(clock_type) <= clocks_.bytes(); }

  /// Room for `keys` clocks; new ones are 0. Nothing may be using the old ones. @throws out_of_memory; they are as before then
  void reserve(D const& device, std::size_t keys) {
    std::size_t const bytes = keys * sizeof(clock_type);
    if (has_room(keys)) return;
    buffer<D> grown(device, std::max(bytes, 2 * clocks_.bytes())), gathered;
    std::size_t const clocks = grown.bytes() / sizeof(clock_type);
    if constexpr (keeps_steps && MaySkip<Rule>) {
      gathered = buffer<D>(device, clocks * sizeof(std::int64_t));
      read_.resize(clocks);
    }
    if constexpr (keeps_groups) groups_.resize(clocks);
    if constexpr (keeps_steps) steps_.resize(clocks);
    device.fill_zero(grown.data(), grown.bytes());
    device.copy(grown.data(), clocks_.data(), clocks_.bytes());
    clocks_ = std::move(grown);
    gathered_ = std::move(gathered);
  }

 private:
  /// Whether the host needs them, and cannot read them on the device.
  static constexpr bool keeps_groups = transforms_matrices<Rule> && !HostDevice<D>;
  static constexpr bool keeps_steps = keeps_matrices<Rule> && !HostDevice<D>;

  buffer<D> rules_;
  buffer<D> clocks_;
  buffer<D> shared_;
  std::vector<std::int32_t> groups_;         // if keeps_groups
  mutable std::vector<std::int64_t> steps_;  // if keeps_steps, as the clocks' memory is
  buffer<D> gathered_;                       // those of a plan, if the device may skip some
  mutable std::vector<std::int64_t> read_;   // the same, on the host
  mutable buffer<D> scratch_;
  factored_libraries<Rule, D> libraries_;
};

}  // namespace pushpull::detail
