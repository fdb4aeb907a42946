/// @file
/// Kinds of keys: strings, integers, or either.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Keys are strings: the default.
struct string_keys {
  using policy_kind = key_tag;
  using key_type = std::string;
  using key_view = std::string_view;
};

/// Keys are 64-bit integers.
struct integer_keys {
  using policy_kind = key_tag;
  using key_type = std::int64_t;
  using key_view = std::int64_t;
};

/// A key of either kind, as a call takes it: an integer, or whatever converts to std::string_view.
class any_key_view {
 public:
  template <std::integral I>
    requires(!std::same_as<I, bool> && !std::same_as<I, char>)
  any_key_view(I key) : key_(static_cast<std::int64_t>(key)) {}
  template <std::convertible_to<std::string_view> S>
  any_key_view(S const& key) : key_(std::string_view(key)) {}

  bool is_string() const { return key_.index() == 1; }
  bool is_integer() const { return key_.index() == 0; }
  /// The key, which is a string. @throws invalid_argument if it is an integer
  std::string_view string() const {
    detail::expects<invalid_argument>(is_string(), [&] {
      return "any_key_view: a string expected, the key is the integer " + std::to_string(std::get<std::int64_t>(key_));
    });
    return std::get<std::string_view>(key_);
  }
  /// The key, which is an integer. @throws invalid_argument if it is a string
  std::int64_t integer() const {
    detail::expects<invalid_argument>(is_integer(), [&] {
      return "any_key_view: an integer expected, the key is \"" + std::string(std::get<std::string_view>(key_)) + "\"";
    });
    return std::get<std::int64_t>(key_);
  }
  /// f(the std::int64_t or std::string_view).
  template <class F>
  decltype(auto) visit(F const& f) const {
    return std::visit(f, key_);
  }
  friend bool operator==(any_key_view const&, any_key_view const&) = default;

 private:
  std::variant<std::int64_t, std::string_view> key_;
};

/// A key of either kind, owned.
class any_key {
 public:
  explicit any_key(any_key_view key) {
    key.visit([this]<class K>(K const& k) {
      if constexpr (std::same_as<K, std::string_view>) {
        key_ = std::string(k);
      } else {
        key_ = k;
      }
    });
  }

  operator any_key_view() const {
    if (auto const* const text = std::get_if<std::string>(&key_)) return *text;
    return std::get<std::int64_t>(key_);
  }
  bool is_string() const { return key_.index() == 1; }
  bool is_integer() const { return key_.index() == 0; }
  /// As any_key_view's.
  std::string_view string() const { return any_key_view(*this).string(); }
  std::int64_t integer() const { return any_key_view(*this).integer(); }
  friend bool operator==(any_key const&, any_key const&) = default;

 private:
  std::variant<std::int64_t, std::string> key_;
};

/// Keys are integers or strings, as the first call has it.
struct any_keys {
  using policy_kind = key_tag;
  using key_type = any_key;
  using key_view = any_key_view;
};

namespace detail {

template <class Key>
struct key_hash : std::hash<Key> {};
template <>
struct key_hash<std::string> {
  using is_transparent = void;
  std::size_t operator()(std::string_view s) const noexcept { return std::hash<std::string_view>{}(s); }
};
template <>
struct key_hash<any_key> {
  using is_transparent = void;
  std::size_t operator()(any_key_view key) const noexcept {
    return key.visit([]<class K>(K const& k) { return std::hash<K>{}(k); });
  }
};

/// An integer key, or the place of a string key in the order of init.
inline std::int64_t number_of(std::string_view, std::int64_t order) { return order; }
inline std::int64_t number_of(std::int64_t key, std::int64_t) { return key; }
inline std::int64_t number_of(any_key_view key, std::int64_t order) {
  return key.visit([&](auto const& k) { return number_of(k, order); });
}

inline std::string key_text(std::string_view key) { return "key \"" + std::string(key) + "\""; }
inline std::string key_text(std::int64_t key) { return "key " + std::to_string(key); }
inline std::string key_text(any_key_view key) {
  return key.visit([](auto const& k) { return key_text(k); });
}
inline std::string key_text(std::string const& key) { return key_text(std::string_view(key)); }
inline std::string key_text(any_key const& key) { return key_text(any_key_view(key)); }

}  // namespace detail
}  // namespace pushpull
