/// @file
/// The rules of a store: one per parameter group, and which keys a group holds.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The rules of a store, one per parameter group, as they were at the time of a call.
template <class Rule>
using rule_list = std::shared_ptr<std::vector<Rule> const>;

/// Rules by group; group 0 holds the keys that no other claims.
template <class Rule, class KeyView>
class parameter_groups {
 public:
  using predicate = std::function<bool(KeyView)>;

  explicit parameter_groups(Rule const& rule) : rules_(std::make_shared<std::vector<Rule> const>(1, rule)) {}

  rule_list<Rule> rules() const {
    std::lock_guard const lock(mutex_);
    return rules_;
  }

  /// How often rules or groups have changed.
  std::uint64_t changes() const noexcept { return changes_.load(std::memory_order_acquire); }

  /// For an operation that was given its rules before a group was added to which its keys now belong.
  void complete(rule_list<Rule>& rules) const {
    std::lock_guard const lock(mutex_);
    if (rules->size() != rules_->size()) rules = rules_;
  }

  /// @throws invalid_argument if there is no such group
  void expect(char const* call, std::size_t group) const {
    std::size_t const size = rules()->size();
    expects<invalid_argument>(group < size, [&] {
      return std::string(call) + ": the store has " + std::to_string(size) + " parameter groups, number " +
             std::to_string(group) + " was named";
    });
  }

  /// The rules with another one for a group, and with one more.
  rule_list<Rule> with(std::size_t group, Rule const& rule) const {
    auto rules = *this->rules();
    rules.resize(std::max(rules.size(), group + 1), rule);
    rules[group] = rule;
    return std::make_shared<std::vector<Rule> const>(std::move(rules));
  }

  void set(rule_list<Rule> next) noexcept {
    std::lock_guard const lock(mutex_);
    rules_.swap(next);
    changes_.fetch_add(1, std::memory_order_release);
  }
  /// Which keys the group added last holds. Room for it was made.
  void claim(predicate belongs) noexcept { predicates_.push_back(std::move(belongs)); }
  void make_room() {
    if (predicates_.size() == predicates_.capacity()) predicates_.reserve(2 * predicates_.size() + 1);
  }

  /// The last group that claims the key.
  std::int32_t of(KeyView key) const {
    for (std::size_t g = predicates_.size(); g > 0; --g)
      if (predicates_[g - 1](key)) return static_cast<std::int32_t>(g);
    return 0;
  }

 private:
  rule_list<Rule> rules_;
  std::atomic<std::uint64_t> changes_ = 0;
  std::vector<predicate> predicates_;  // of group 1, 2, ...
  mutable std::mutex mutex_;           // rules_
};

}  // namespace pushpull::detail
