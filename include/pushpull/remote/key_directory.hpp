/// @file
/// The keys of a job on server 0: their numbers and shapes, and which have their initial values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/remote/frames.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/store/keys.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// The flags of an answer to register_key.
inline constexpr std::uint8_t key_has_value = 1;
inline constexpr std::uint8_t asker_sends_value = 2;
/// The flag of register_key: a server that should have a piece of the key has none.
inline constexpr std::uint8_t value_is_missing = 1;
/// The flag of key_ready: the worker that was to send the value could not.
inline constexpr std::uint8_t value_failed = 1;

/// A key as workers register it.
struct registered_key {
  std::string name;  ///< "s" and the string, or "i" and the integer.
  std::vector<std::int64_t> extents;
  std::uint64_t row_length = 1;
  std::uint8_t element = 0;
  std::string cut = {};  ///< How the worker cuts keys, in words: see cut_text.

  friend bool operator==(registered_key const&, registered_key const&) = default;
};

inline std::string name_of(any_key_view key) {
  return key.is_string() ? "s" + std::string(key.string()) : "i" + std::to_string(key.integer());
}
/// Of a name, for messages.
inline std::string shown(std::string_view name) {
  return name.starts_with('s') ? "key \"" + std::string(name.substr(1)) + "\"" : "key " + std::string(name.substr(1));
}
inline std::string shape_text(registered_key const& key) {
  std::string text = "(";
  for (std::size_t axis = 0; axis < key.extents.size(); ++axis)
    text += (axis > 0 ? ", " : "") + std::to_string(key.extents[axis]);
  return text + ") of " + std::string(element_name(key.element));
}

/// The payload of register_key: the numbers of extents and of characters of `cut`, the extents, `cut`, the name.
inline std::string to_payload(registered_key const& key) {
  std::string text(16 + 8 * key.extents.size(), '\0');
  byte_writer out(std::as_writable_bytes(std::span(text)));
  out.put(static_cast<std::uint64_t>(key.extents.size()));
  out.put(static_cast<std::uint64_t>(key.cut.size()));
  for (std::int64_t const extent : key.extents) out.put(extent);
  return text + key.cut + key.name;
}
/// Names are at most so long, in bytes.
inline constexpr std::size_t longest_name = 4096;
inline constexpr std::size_t longest_cut = 256;

/// The key in a message; none unless the payload is one that to_payload makes.
inline std::optional<registered_key> key_in(message_header const& h, std::span<std::byte const> payload) {
  if (payload.size() < 16 || h.row_length == 0) return std::nullopt;
  byte_reader in(payload);
  auto const rank = in.get<std::uint64_t>();
  auto const cut = static_cast<std::size_t>(in.get<std::uint64_t>());
  if (rank > 64 || cut > longest_cut) return std::nullopt;
  std::size_t const before = 16 + 8 * static_cast<std::size_t>(rank) + cut;
  if (payload.size() < before || payload.size() > before + longest_name) return std::nullopt;
  registered_key key;
  for (std::uint64_t axis = 0; axis < rank; ++axis) {
    key.extents.push_back(in.get<std::int64_t>());
    if (key.extents.back() < 0) return std::nullopt;
  }
  key.cut.assign(reinterpret_cast<char const*>(payload.data()) + before - cut, cut);
  key.name.assign(reinterpret_cast<char const*>(payload.data()) + before, payload.size() - before);
  if (!key.name.starts_with('s') && !key.name.starts_with('i')) return std::nullopt;
  key.row_length = h.row_length;
  key.element = h.element;
  return key;
}

/// The keys. Those that have no value yet have askers, and one of them sends it.
class key_directory {
 public:
  struct entry {
    registered_key key;
    bool is_ready = false;
    bool had_value = false;  ///< A server has lost pieces of the key since: any worker may give them anew.
    std::uint32_t sender = no_worker;
    std::vector<message_header> askers = {};  ///< Wait for the value.
  };

  /// Of this directory, which no other has: a server 0 that has lost its keys begins another one.
  std::uint64_t identity = random_number();

  /// The key's number: its place in the order of registration.
  std::int64_t number_of(registered_key const& key) {
    auto const [found, is_new] = numbers_.try_emplace(key.name, static_cast<std::int64_t>(entries_.size()));
    if (is_new) entries_.push_back({key});
    return found->second;
  }
  entry* find(std::int64_t number) {
    return number >= 0 && number < static_cast<std::int64_t>(entries_.size())
               ? &entries_[static_cast<std::size_t>(number)]
               : nullptr;
  }
  std::vector<entry>& entries() { return entries_; }
  std::vector<entry> const& entries() const { return entries_; }

 private:
  std::vector<entry> entries_;
  std::map<std::string, std::int64_t> numbers_;  // by name
};

}  // namespace pushpull::remote::detail
