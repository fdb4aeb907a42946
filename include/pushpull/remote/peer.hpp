/// @file
/// A server as a worker's link sees it, and the exceptions that its answers mean.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstring>
#include <deque>
#include <exception>
#include <optional>
#include <string>
#include <string_view>

#include <zmq.hpp>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/remote/frames.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/remote/request.hpp>
#include <pushpull/remote/welcome.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// The exception that an answer of kind `error` means.
inline std::exception_ptr error_in(message_header const& h, std::string_view text) {
  std::string const what(text);
  switch (h.error) {
    case message_error::invalid_argument: return std::make_exception_ptr(invalid_argument(what));
    case message_error::unknown_key: return std::make_exception_ptr(unknown_key(what));
    case message_error::shape_mismatch: return std::make_exception_ptr(shape_mismatch(what));
    case message_error::duplicate_key: return std::make_exception_ptr(duplicate_key(what));
    case message_error::worker_lost: return std::make_exception_ptr(comm_error(-1, what));
    default: return std::make_exception_ptr(error(what));
  }
}

/// Gives an answer's payload to its request, or the error that it means.
inline void take_answer(request& r, message_header const& h, zmq::message_t const& payload) {
  r.answer = h;
  if (r.acknowledged != nullptr) *r.acknowledged = h.kind != message_kind::error;
  if (h.kind == message_kind::error) {
    r.group->fail(r, error_in(h, text_of(payload)));
  } else if (r.text != nullptr) {
    r.text->append(text_of(payload));
  } else if (payload.size() != r.values.size()) {
    r.group->fail(r, std::make_exception_ptr(
                         comm_error(-1, "remote_store: an answer of " + std::to_string(r.values.size()) +
                                            " bytes expected, one of " + std::to_string(payload.size()) + " came")));
  } else if (!r.values.empty()) {
    std::memcpy(r.values.data(), payload.data(), payload.size());
  }
}

/// A server. Belongs to the link's thread.
struct peer {
  using clock = std::chrono::steady_clock;

  std::string address;
  std::optional<zmq::socket_t> socket;
  bool is_welcome = false;
  bool was_welcome = false;
  bool is_lost = false;  ///< Requests fail.
  std::string doubt;     ///< Why the server does not welcome this worker.
  std::optional<server_welcome> facts;
  std::deque<request*> queued, in_flight;
  std::size_t updates = 0;  ///< In flight, and counted.
  std::size_t bytes = 0;    ///< In flight, there and back, of those that wait for no other worker.
  clock::time_point heard = clock::now();
  clock::time_point greeted = {}, beat = {};  ///< When hello and a heartbeat were sent last.

  /// Whether an asynchronous server answers at once: without other servers or workers, or the disk.
  static bool is_counted(request const& r) {
    return is_about_pieces(r.header.kind) && r.header.kind != message_kind::init;
  }
  static std::size_t bytes_of_both(request const& r) { return r.payload.size() + r.values.size(); }
  /// Whether a request's answer waits for no other worker.
  bool waits_for_server_only(request const& r) const {
    return r.header.kind == message_kind::init || (is_counted(r) && facts && facts->consistency == 0);
  }
  /// The next request of the queue is sent.
  request& next_sent() {
    request& r = *queued.front();
    queued.pop_front();
    in_flight.push_back(&r);
    if (is_counted(r)) ++updates;
    if (waits_for_server_only(r)) bytes += bytes_of_both(r);
    return r;
  }
  /// Gives an answer to its request, if it is the first. @returns the kind of the request; none if there is none
  std::optional<message_kind> answer(message_header const& h, zmq::message_t const& payload) {
    for (auto at = in_flight.begin(); at != in_flight.end(); ++at) {
      if ((*at)->header.sequence != h.sequence) continue;
      request& r = **at;
      in_flight.erase(at);
      if (is_counted(r)) --updates;
      if (waits_for_server_only(r)) bytes -= bytes_of_both(r);
      message_kind const kind = r.header.kind;
      take_answer(r, h, payload);
      r.group->finish(r);
      return kind;
    }
    return std::nullopt;
  }
  /// Fails all requests.
  void fail_all(std::exception_ptr const& error) noexcept {
    for (auto* const list : {&in_flight, &queued}) {
      for (request* const r : *list) {
        r->group->fail(*r, error);
        r->group->finish(*r);
      }
      list->clear();
    }
    updates = 0;
    bytes = 0;
  }
};

}  // namespace pushpull::remote::detail
