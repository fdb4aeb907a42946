/// @file
/// A server's work on requests that are about no piece: hyperparameters, commands, counts.
#pragma once

#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include <zmq.hpp>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/remote/answers.hpp>
#include <pushpull/remote/frames.hpp>
#include <pushpull/remote/membership.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/remote/profiler.hpp>
#include <pushpull/remote/served_store.hpp>
#include <pushpull/store/exchange/command.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// Requests that each server answers by itself, once each. Belongs to the server's thread.
class control_service {
 public:
  control_service(served_store& store, answer_sender& answers, std::uint32_t server, command_handler handler)
      : profiler(server), store_(store), answers_(answers), handler_(std::move(handler)) {}

  server_profiler profiler;
  bool keeps_rules = false;   ///< Answers wait until the rule is in a snapshot.
  std::uint64_t changes = 0;  ///< Of what workers set, so far.

  /// A request of a worker. @returns false if it is one of another kind
  bool handle(message_header const& h, member& worker, zmq::message_t const& payload) {
    switch (h.kind) {
      case message_kind::optimizer:
      case message_kind::hyperparameters:
      case message_kind::multipliers:
      case message_kind::command: break;
      case message_kind::status:
        answers_.send(h, message_kind::acknowledge, frame_of(to_json(answers_.counts)));
        return true;
      default: return false;
    }
    try {
      if (h.sequence > worker.last_control) run(h, text_of(payload));  // else the answer was lost
      worker.last_control = h.sequence;
      if (h.kind == message_kind::command) {
        answers_.send(h, message_kind::acknowledge);
      } else if (h.kind == message_kind::optimizer && keeps_rules) {
        answers_.keep(h, 0);
      } else {
        answers_.send_update(h, {}, 0);
      }
    } catch (invalid_argument const& thrown) {
      answers_.fail(h, message_error::invalid_argument, thrown.what());
    } catch (std::exception const& thrown) {
      answers_.fail(h, message_error::failed, thrown.what());
    }
    return true;
  }

 private:
  void run(message_header const& h, std::string_view text) {
    switch (h.kind) {
      case message_kind::optimizer:
      case message_kind::hyperparameters:
      case message_kind::multipliers:
        store_.set(h.kind, h.key, text);
        ++changes;
        return;
      default: break;
    }
    if (h.key == profiler_command) return profiler.command(text);
    if (handler_) handler_(h.key, text);
  }

  served_store& store_;
  answer_sender& answers_;
  command_handler handler_;
};

}  // namespace pushpull::remote::detail
