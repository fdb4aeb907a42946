/// @file
/// The keys of a remote_store, and where their pieces are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/remote/compression.hpp>
#include <pushpull/remote/key_directory.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/remote/pieces.hpp>
#include <pushpull/remote/request.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/store/keys.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// A key that workers and servers know.
struct remote_key {
  any_key key;
  pushpull::shape shape;
  std::int64_t row_length = 1;
  std::int64_t number = 0;
  std::vector<key_piece> pieces = {};
  std::vector<std::unique_ptr<piece_encoder>> encoders = {};  ///< Of compressed gradients, one per piece.
  std::uint64_t compression = 0;          ///< The store's number of compressors when they were made.
  pushpull::detail::variable order = {};  ///< Of the operations on the key.

  /// A request about piece number i.
  request about(message_kind kind, std::size_t i, std::uint8_t element) const {
    request r;
    r.server = pieces[i].server;
    r.header.kind = kind;
    r.header.element = element;
    r.header.key = number;
    r.header.piece = static_cast<std::uint32_t>(i);
    r.header.elements = static_cast<std::uint64_t>(pieces[i].size());
    r.header.row_length = static_cast<std::uint64_t>(row_length);
    return r;
  }
};

/// All keys, in the order of init.
class remote_keys {
 public:
  bool contains(any_key_view key) const {
    std::shared_lock const lock(mutex_);
    return by_name_.contains(name_of(key));
  }
  /// @throws unknown_key
  remote_key& find(char const* call, any_key_view key) const {
    std::shared_lock const lock(mutex_);
    auto const found = by_name_.find(name_of(key));
    pushpull::detail::expects<unknown_key>(found != by_name_.end(), [&] {
      return std::string(call) + ": " + pushpull::detail::key_text(key) + " was never given to init";
    });
    return *found->second;
  }
  void add(std::unique_ptr<remote_key> key) {
    std::unique_lock const lock(mutex_);
    any_key name = key->key;
    if (by_name_.try_emplace(name_of(name), std::move(key)).second) order_.push_back(std::move(name));
  }
  std::vector<any_key> list() const {
    std::shared_lock const lock(mutex_);
    return order_;
  }

 private:
  mutable std::shared_mutex mutex_;
  std::vector<any_key> order_;
  std::map<std::string, std::unique_ptr<remote_key>, std::less<>> by_name_;
};

}  // namespace pushpull::remote::detail
