/// @file
/// The values that a checkpoint holds of a store, set in all keys or in none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/store/operations/operation.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Arrays of a key in a checkpoint.
enum class saved_array {
  value,            ///< The weights, in the masters' type.
  untrained_value,  ///< Same, of a key that no step updates: the program writes its mirrors, and that of device 0 counts.
  state,            ///< One of the rule's, by its name.
  sum               ///< Of micro-batches.
};

/// Elements [begin, end) of an array: those that this process holds.
struct array_part {
  std::string_view dtype;  ///< The elements' type: "float32".
  std::int64_t begin = 0, end = 0;
  std::vector<std::byte> bytes = {};  ///< A copy in host memory, if one was asked for.
};

/// Elements of an array that follow one another, in host memory. The bytes belong to the caller.
struct saved_range {
  std::span<std::byte const> bytes;
  std::int64_t first = 0;  ///< The number of the first one.

  /// Where element number `element`, of `size` bytes, lies.
  std::byte const* at(std::int64_t element, std::size_t size) const {
    return bytes.data() + static_cast<std::size_t>(element - first) * size;
  }
};

/// The values that a checkpoint holds of one key, or as many of their elements as this process needs.
struct saved_values {
  std::vector<saved_range> states;  ///< In the order of the store's names.
  std::int64_t steps = 0;
  std::int64_t micro_batches = 0;  ///< 0: the key forgets those that it has gathered.
  saved_range sum = {};            ///< Of these micro-batches.
  /// The weights in the masters' type, all elements if the key has mirrors; none: they stay.
  std::optional<saved_range> value = {};
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
    function_operation op(make);
    for (variable* const order : orders_) op.writes(*order);
    perform_(op);
  }

 private:
  std::function<void(operation&)> perform_;
  std::vector<variable*> orders_;
  std::vector<std::function<void()>> changes_;
};

}  // namespace pushpull::detail
