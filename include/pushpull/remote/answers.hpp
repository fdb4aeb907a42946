/// @file
/// The answers of a server, and counts of what it has done.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <zmq.hpp>

#include <pushpull/config.hpp>
#include <pushpull/remote/frames.hpp>
#include <pushpull/remote/membership.hpp>
#include <pushpull/remote/message.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote {

/// Counts of a server's messages of one kind.
struct kind_counts {
  std::uint64_t messages = 0;
  std::uint64_t payload_bytes = 0;
  double seconds = 0;
};

/// Counts of a server's messages since it started.
struct server_counts {
  std::array<kind_counts, last_message_kind + 1U> kinds = {};  ///< By message_kind.
  std::uint64_t malformed = 0;                                 ///< Messages without a valid header, dropped.
  std::uint64_t refused = 0;                                   ///< Messages answered with an error.
  std::uint64_t repeated = 0;                                  ///< Updates that had been applied before.
  std::uint64_t unsent = 0;                                    ///< Answers whose worker was gone.
  std::uint64_t unsaved = 0;                                   ///< Snapshots that failed.
};

namespace detail {

/// Sends answers to workers, where they are connected now. Belongs to the server's thread.
class answer_sender {
 public:
  answer_sender(zmq::socket_t& socket, membership const& members) : socket_(socket), members_(members) {}

  server_counts counts;
  /// Answers to updates are kept until `release`: their effects are not on the medium yet.
  bool keeps_updates = false;

  /// To the worker that asked, if it is the one that is alive. A header only, unless there is a payload.
  void send(message_header const& request, message_kind kind, zmq::message_t payload = zmq::message_t(),
            std::uint8_t flags = 0, std::uint64_t version = 0) {
    message_header h = answer_to(request, kind);
    h.flags = flags;
    h.version = version;
    deliver(h, std::move(payload));
  }
  /// To the worker that asked for an update.
  void send_update(message_header const& request, zmq::message_t payload, std::uint64_t version) {
    if (!keeps_updates) return send(request, message_kind::acknowledge, std::move(payload), 0, version);
    message_header h = answer_to(request, message_kind::acknowledge);
    h.version = version;
    kept_.emplace_back(h, std::move(payload));
  }
  /// Same as `send` without a payload, but after `release`.
  void keep(message_header const& request, std::uint8_t flags) {
    message_header h = answer_to(request, message_kind::acknowledge);
    h.flags = flags;
    kept_.emplace_back(h, zmq::message_t());
  }
  /// Sends what was kept.
  void release() {
    for (auto& [header, payload] : kept_) deliver(header, std::move(payload));
    kept_.clear();
  }
  bool has_kept() const { return !kept_.empty(); }

  void fail(message_header const& request, message_error error, std::string_view text) {
    ++counts.refused;
    message_header h = answer_to(request, message_kind::error);
    h.error = error;
    deliver(h, frame_of(text));
  }
  /// To a connection of which no worker is known.
  void refuse(std::string const& connection, message_header const& request, message_error error,
              std::string_view text) {
    ++counts.refused;
    message_header h = answer_to(request, message_kind::error);
    h.error = error;
    deliver(connection, h, frame_of(text));
  }

 private:
  static message_header answer_to(message_header const& request, message_kind kind) {
    message_header h = request;
    h.kind = kind;
    h.flags = 0;
    h.error = message_error::none;
    return h;
  }
  void deliver(message_header const& h, zmq::message_t payload) {
    if (h.worker >= members_.size()) return;
    member const& m = members_[h.worker];
    if (m.state == worker_state::alive && m.incarnation == h.incarnation) deliver(m.connection, h, std::move(payload));
  }
  void deliver(std::string const& connection, message_header const& h, zmq::message_t payload) {
    zmq::message_t to = frame_of(connection);
    if (!try_send(socket_, to, true) || !send_message(socket_, h, std::move(payload))) ++counts.unsent;
  }

  zmq::socket_t& socket_;
  membership const& members_;
  std::vector<std::pair<message_header, zmq::message_t>> kept_;
};

}  // namespace detail
}  // namespace pushpull::remote
