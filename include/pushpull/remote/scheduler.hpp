/// @file
/// The scheduler of a job: where servers and workers learn of each other. It knows addresses, and no keys.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <zmq.hpp>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/remote/frames.hpp>
#include <pushpull/remote/message.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote {

/// Gives numbers to servers, and their addresses to workers. Ends when all servers have said goodbye.
class scheduler {
 public:
  /// Listens when it returns. @param address  "tcp://127.0.0.1:9000". @throws comm_error if it cannot
  scheduler(std::string const& address, std::size_t servers, std::uint64_t job = 0)
      : job_(job), addresses_(servers), has_left_(servers) {
    try {
      socket_.set(zmq::sockopt::router_mandatory, 1);
      socket_.set(zmq::sockopt::linger, 200);
      socket_.set(zmq::sockopt::maxmsgsize, std::int64_t{4096});
      socket_.bind(address);
      address_ = socket_.get(zmq::sockopt::last_endpoint);
    } catch (zmq::error_t const& failure) {
      throw comm_error(-1, "scheduler: cannot listen at " + address + ": " + failure.what());
    }
  }

  std::string const& address() const { return address_; }
  /// Returns when all servers have left, or soon after `stop`.
  void run() {
    zmq::pollitem_t item{socket_.handle(), 0, ZMQ_POLLIN, 0};
    while (!stops_ && std::find(has_left_.begin(), has_left_.end(), false) != has_left_.end()) {
      zmq_poll(&item, 1, 20);
      detail::received_message message;
      while (detail::receive_message(socket_, true, message)) handle(message);
    }
  }
  /// From any thread.
  void stop() noexcept { stops_ = true; }

 private:
  struct asker {
    std::string connection;
    message_header header;
  };

  void handle(detail::received_message const& message) {
    auto const h = message.frames == detail::message_frames ? header_in(detail::bytes_of(message.head)) : std::nullopt;
    if (!h || h->payload_bytes != message.payload.size()) return;
    std::string const connection(detail::text_of(message.connection));
    if (h->job != job_) return refuse(connection, *h);
    auto const number = static_cast<std::size_t>(h->key);
    bool const is_server = h->key >= 0 && number < addresses_.size();
    switch (h->kind) {
      case message_kind::new_server: return number_server(connection, *h);
      case message_kind::server_address:
        if (!is_server) return;
        addresses_[number] = detail::text_of(message.payload);
        has_left_[number] = false;
        answer({connection, *h}, "");
        return answer_askers();
      case message_kind::list_servers:
        std::erase_if(askers_, [&](asker const& a) { return a.header.incarnation == h->incarnation; });  // asks again
        askers_.push_back({connection, *h});
        return answer_askers();
      case message_kind::goodbye:
        if (is_server) has_left_[number] = true;
        return;
      default: return;
    }
  }
  void refuse(std::string const& connection, message_header h) {
    if (h.kind == message_kind::goodbye) return;
    h.error = message_error::wrong_job;
    answer({connection, h}, "");
  }
  void number_server(std::string const& connection, message_header h) {
    auto const known = std::find(incarnations_.begin(), incarnations_.end(), h.incarnation);
    h.key = known - incarnations_.begin();
    if (known == incarnations_.end()) incarnations_.push_back(h.incarnation);
    if (h.key >= static_cast<std::int64_t>(addresses_.size())) h.error = message_error::invalid_argument;
    answer({connection, h}, "");
  }
  void answer_askers() {
    std::string all;
    for (std::string const& address : addresses_) {
      if (address.empty()) return;
      all += address + '\n';
    }
    for (asker const& a : std::exchange(askers_, {})) answer(a, all);
  }
  void answer(asker const& a, std::string_view text) {
    zmq::message_t to = detail::frame_of(a.connection);
    message_header h = a.header;
    h.kind = h.error == message_error::none ? message_kind::acknowledge : message_kind::error;
    if (detail::try_send(socket_, to, true)) detail::send_message(socket_, h, detail::frame_of(text));
  }

  zmq::context_t context_{1};
  zmq::socket_t socket_{context_, zmq::socket_type::router};
  std::string address_;
  std::uint64_t job_;
  std::vector<std::uint64_t> incarnations_;  // of servers, by number
  std::vector<std::string> addresses_;
  std::vector<bool> has_left_;
  std::vector<asker> askers_;
  std::atomic<bool> stops_{false};
};

namespace detail {

/// Asks a scheduler, again and again until it answers.
class scheduler_client {
 public:
  scheduler_client(std::string address, std::uint64_t job, std::chrono::milliseconds patience)
      : address_(std::move(address)), patience_(patience) {
    header_.job = job;
    header_.incarnation = random_number();
    socket_.set(zmq::sockopt::linger, 200);
    socket_.set(zmq::sockopt::reconnect_ivl, 20);
    try {
      socket_.connect(address_);
    } catch (zmq::error_t const& failure) {
      throw comm_error(-1, "scheduler: cannot connect to " + address_ + ": " + failure.what());
    }
  }

  /// @returns the answer and its payload. @throws comm_timeout, comm_error
  std::pair<message_header, std::string> ask(message_kind kind, std::int64_t key, std::string_view text) {
    header_.kind = kind;
    header_.key = key;
    ++header_.sequence;
    auto const end = std::chrono::steady_clock::now() + patience_;
    while (std::chrono::steady_clock::now() < end) {
      send_message(socket_, header_, frame_of(text));
      for (int i = 0; i < 20; ++i) {
        zmq::pollitem_t item{socket_.handle(), 0, ZMQ_POLLIN, 0};
        zmq_poll(&item, 1, 50);
        received_message message;
        while (receive_message(socket_, false, message)) {
          auto const h = message.frames == message_frames ? header_in(bytes_of(message.head)) : std::nullopt;
          if (!h || h->sequence != header_.sequence || h->incarnation != header_.incarnation) continue;
          if (h->error == message_error::wrong_job)
            throw comm_error(-1, "scheduler: the one at " + address_ + " is that of another job than number " +
                                     std::to_string(header_.job));
          if (h->kind == message_kind::error)
            throw comm_error(-1, "scheduler: all servers of the job at " + address_ + " have come before this one");
          return {*h, std::string(text_of(message.payload))};
        }
      }
    }
    throw comm_timeout(-1, "scheduler: waited " + std::to_string(patience_.count()) + " ms for " + address_);
  }
  void say_goodbye(std::int64_t key) {
    header_.kind = message_kind::goodbye;
    header_.key = key;
    send_message(socket_, header_, {});
  }

 private:
  std::string address_;
  std::chrono::milliseconds patience_;
  zmq::context_t context_{1};
  zmq::socket_t socket_{context_, zmq::socket_type::dealer};
  message_header header_;
};

}  // namespace detail
}  // namespace pushpull::remote
