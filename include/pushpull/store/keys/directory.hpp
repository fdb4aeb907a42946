/// @file
/// The keys of stores that share one space of names.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/keys.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Which of several stores has a key. May be used by several threads.
template <class Key, class View>
class key_directory {
 public:
  using key_view = View;

  /// What a store is called in messages: its element type.
  struct place {
    std::size_t store;
    std::string_view dtype;
  };

  std::optional<place> find(View key) const {
    std::lock_guard const lock(mutex_);
    auto const found = places_.find(key);
    return found == places_.end() ? std::nullopt : std::optional(found->second);
  }

  /// Enters all keys or none. @returns  The number of the first among all keys. @throws duplicate_key
  std::size_t enter(std::span<View const> keys, place where) {
    std::lock_guard const lock(mutex_);
    std::size_t const before = order_.size();
    std::size_t entered = before;
    try {
      for (View const key : keys) {
        order_.emplace_back(key);
        if (!places_.try_emplace(order_.back(), where).second) {
          bool const twice = std::find(order_.begin() + static_cast<std::ptrdiff_t>(before), order_.end() - 1,
                                       order_.back()) != order_.end() - 1;
          throw duplicate_key("init: " + key_text(key) +
                              (twice ? " stands twice in one call" : " was given to init before"));
        }
        ++entered;
      }
    } catch (...) {
      for (std::size_t i = before; i < entered; ++i) places_.erase(places_.find(View(order_[i])));
      order_.erase(order_.begin() + static_cast<std::ptrdiff_t>(before), order_.end());
      throw;
    }
    return before;
  }
  /// Takes keys that were just entered out again.
  void leave(std::span<View const> keys) noexcept {
    std::lock_guard const lock(mutex_);
    for (View const key : keys) places_.erase(places_.find(key));
    std::erase_if(order_, [&](Key const& key) { return places_.find(key) == places_.end(); });
  }

  /// In the order of their entry.
  std::vector<Key> keys() const {
    std::lock_guard const lock(mutex_);
    return order_;
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<Key, place, key_hash<Key>, std::equal_to<>> places_;
  std::vector<Key> order_;
};

}  // namespace pushpull::detail
