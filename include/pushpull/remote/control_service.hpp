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
    done_request const* done = worker.find_done(h.sequence);  // if the answer was lost
    if (done == nullptr) done = &worker.note(run(h, text_of(payload)));
    if (done->error != message_error::none) {
      answers_.fail(h, done->error, done->text);
    } else if (h.kind == message_kind::command) {
      answers_.send(h, message_kind::acknowledge);
    } else if (h.kind == message_kind::optimizer && keeps_rules) {
      answers_.keep(h, 0);
    } else {
      answers_.send_update(h, {}, 0);
    }
    return true;
  }

 private:
  done_request run(message_header const& h, std::string_view text) {
    try {
      apply(h, text);
      return {h.sequence};
    } catch (invalid_argument const& thrown) {
      return {h.sequence, message_error::invalid_argument, thrown.what()};
    } catch (std::exception const& thrown) {
      return {h.sequence, message_error::failed, thrown.what()};
    } catch (...) {
      return {h.sequence, message_error::failed, "command: the handler threw"};
    }
  }
  void apply(message_header const& h, std::string_view text) {
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
