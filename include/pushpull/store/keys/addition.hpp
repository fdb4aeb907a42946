/// @file
/// Keys that have been made and are in no table yet.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/store/keys/arena_list.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Keys that have been made and are not in the table. Dropped, they leave no trace.
/// @tparam Directory  Where their names are entered. @tparam Index  A set of records.
template <class Record, class Directory, class Index, class Arena>
struct key_addition {
  std::shared_ptr<Directory> directory;
  std::vector<typename Directory::key_view> names;  ///< The caller's.
  Index records;
  typename arena_list<Arena>::place memory;

  key_addition() = default;
  key_addition(key_addition&& other) noexcept = default;
  key_addition& operator=(key_addition&&) = delete;
  ~key_addition() {
    if (directory != nullptr) directory->leave(names);
  }

  /// f(record) for each key.
  template <class F>
  void for_each(F const& f) {
    for (auto const& r : records) f(*r);
  }
  std::size_t size() const { return records.size(); }
};

}  // namespace pushpull::detail
