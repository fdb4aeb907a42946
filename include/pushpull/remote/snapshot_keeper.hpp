/// @file
/// The snapshots of a server as its router sees them.
#pragma once

#include <chrono>
#include <cstddef>
#include <span>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/remote/key_directory.hpp>
#include <pushpull/remote/membership.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/remote/served_pieces.hpp>
#include <pushpull/remote/served_store.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// Writes what a server holds, and reads it back. See remote/snapshots.hpp.
class snapshot_keeper {
 public:
  snapshot_keeper() = default;
  snapshot_keeper(snapshot_keeper const&) = delete;
  snapshot_keeper& operator=(snapshot_keeper const&) = delete;
  virtual ~snapshot_keeper() = default;

  /// Whether updates are acknowledged after the snapshot that has them.
  virtual bool is_durable() const = 0;
  virtual std::chrono::milliseconds every() const = 0;
  /// Fills the server and its store, which are empty, from the newest whole snapshot, if there is one.
  virtual void restore(served_pieces& pieces, key_directory& keys, std::vector<known_worker>& workers,
                       served_store& store) = 0;
  /// @throws file_error
  virtual void save(served_pieces const& pieces, std::span<server_setting const> settings) = 0;
  /// An initial value, which is on the medium after `commit_values`, without a snapshot. @throws file_error
  virtual void add_value(message_header const& h, std::span<std::byte const> value) = 0;
  virtual void commit_values() = 0;
  virtual void save_keys(key_directory const& keys) = 0;
  virtual void save_workers(std::span<known_worker const> workers) = 0;
};

}  // namespace pushpull::remote::detail
