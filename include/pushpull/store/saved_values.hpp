/// @file
/// The values that a checkpoint holds of a store, set in all keys or in none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/store/operations/operation.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The values that a checkpoint holds of one key. The bytes belong to the caller.
struct saved_values {
  std::vector<std::span<std::byte const>> states;  // in the order of the store's names
  std::int64_t steps = 0;
  std::int64_t micro_batches = 0;  // 0: the key forgets those that it has gathered
  std::span<std::byte const> sum;  // of these micro-batches
};

/// Changes of several keys, which have been prepared and are made together: what may fail for lack of memory comes first.
class prepared_changes {
 public:
  /// A change of what `order` orders, once for each. `perform(op)` runs an operation; the same for all changes of a store.
  template <class Perform, class Change>
  void add(variable& order, Perform const& perform, Change change) {
    if (!perform_) perform_ = perform;
    orders_.push_back(&order);
    changes_.push_back(std::move(change));
  }
  /// A change that a store of the user makes in calls of its own. It may fail.
  template <class Change>
  void add(Change change) {
    changes_.push_back(std::move(change));
  }
  /// Makes all changes, between the earlier and the later operations on what they change. @throws before the first of them
  void commit() {
    auto const make = [&] {
      for (auto const& change : changes_) change();
    };
    if (!perform_) return make();
    function_operation<decltype(make) const&> op(make);
    for (variable* const order : orders_) op.writes(*order);
    perform_(op);
  }

 private:
  std::function<void(operation&)> perform_;
  std::vector<variable*> orders_;
  std::vector<std::function<void()>> changes_;
};

}  // namespace pushpull::detail
