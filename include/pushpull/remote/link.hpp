/// @file
/// A worker's connections to all servers, and the thread that owns them.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <zmq.hpp>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/remote/frames.hpp>
#include <pushpull/remote/freed_memory.hpp>
#include <pushpull/remote/membership.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/remote/options.hpp>
#include <pushpull/remote/peer.hpp>
#include <pushpull/remote/request.hpp>
#include <pushpull/remote/wake_pipe.hpp>
#include <pushpull/remote/welcome.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// Sends requests to servers and brings their answers back. Requests that are not answered are sent again when a connection or
/// a server has come back; servers apply each of them once.
class link {
 public:
  using clock = peer::clock;

  /// Returns when all servers know this worker. @throws comm_timeout, whose rank is a server that did not answer; comm_error if
  /// a server refuses the worker; invalid_argument
  link(std::vector<std::string> const& addresses, worker_options options)
      : options_(std::move(options)), incarnation_(random_number()) {
    pushpull::detail::expects<invalid_argument>(!addresses.empty(), [] {
      return std::string("remote_store: the address of at least 1 server expected, got none");
    });
    pushpull::detail::expects<invalid_argument>(options_.rank < std::int64_t{most_workers}, [&] {
      return "remote_store: a rank below " + std::to_string(most_workers) + " expected, got " +
             std::to_string(options_.rank);
    });
    pushpull::detail::expects<invalid_argument>(options_.heartbeat.count() > 0, [&] {
      return "remote_store: a heartbeat above 0 ms expected, got " + std::to_string(options_.heartbeat.count()) + " ms";
    });
    keep_freed_memory();
    rank_ = options_.rank < 0 ? no_worker : static_cast<std::uint32_t>(options_.rank);
    for (std::string const& address : addresses) {
      peers_.push_back(std::make_unique<peer>());
      peers_.back()->address = address;
      connect(*peers_.back());
    }
    thread_ = std::thread([this] { run(); });
    try {
      await_welcome();
    } catch (...) {
      end();
      throw;
    }
  }
  link(link const&) = delete;
  link& operator=(link const&) = delete;
  /// Says goodbye. What was not answered fails.
  ~link() { end(); }

  std::size_t servers() const { return peers_.size(); }
  std::uint32_t rank() const { return rank_.load(); }
  /// Of server 0; the largest payload is the least of all servers'.
  server_welcome const& facts() const { return facts_; }
  /// The number of server 0's directory of keys.
  std::uint64_t directory() const { return directory_.load(); }
  /// Workers that server 0 counted as dead when it was last heard.
  std::uint64_t dead_workers() const { return dead_workers_.load(); }

  /// Takes requests, in this order; their group has begun. From any thread.
  void submit(request_group& group) {
    for (request const& r : group.requests)
      if (r.payload.size() > facts_.largest_payload) return refuse_all(group, r.payload.size());
    {
      std::lock_guard const lock(mutex_);
      for (request& r : group.requests) {
        r.header.sequence = ++sequence_;
        submitted_.push_back(&r);
      }
    }
    wake_.wake();
    group.close();
  }

 private:
  static constexpr std::size_t window = 4;                         // pieces under way to one server
  static constexpr std::size_t most_bytes = std::size_t{1} << 26;  // of requests that wait for its disk
  static constexpr std::size_t copied_below = 4096;                // bytes: lending memory costs more

  void connect(peer& p) {
    try {
      zmq::socket_t socket(context_, zmq::socket_type::dealer);
      socket.set(zmq::sockopt::linger, 0);
      socket.set(zmq::sockopt::immediate, 1);  // nothing is kept for a server that is not there: it is sent again
      socket.set(zmq::sockopt::sndhwm, 0);
      socket.set(zmq::sockopt::rcvhwm, 0);
      socket.set(zmq::sockopt::reconnect_ivl, 20);
      socket.set(zmq::sockopt::reconnect_ivl_max, 200);
      if (!options_.server_key.empty()) {
        curve_keys const own = options_.curve.secret_key.empty() ? new_curve_keys() : options_.curve;
        socket.set(zmq::sockopt::curve_serverkey, options_.server_key);
        socket.set(zmq::sockopt::curve_publickey, own.public_key);
        socket.set(zmq::sockopt::curve_secretkey, own.secret_key);
      }
      socket.connect(p.address);
      p.socket = std::move(socket);  // the old one ends
    } catch (zmq::error_t const& failure) {
      throw comm_error(-1, "remote_store: cannot connect to " + p.address + ": " + failure.what());
    }
    p.is_welcome = false;
  }

  void await_welcome() {
    std::unique_lock lock(mutex_);
    bool const in_time =
        welcomed_.wait_for(lock, options_.patience, [&] { return !refusal_.empty() || welcomes_ == peers_.size(); });
    if (!refusal_.empty()) throw comm_error(-1, "remote_store: " + refusal_);
    if (in_time) {
      std::int64_t const heartbeat = options_.heartbeat.count();
      pushpull::detail::expects<invalid_argument>(heartbeat < std::int64_t{facts_.dead_after}, [&] {
        return "remote_store: a heartbeat below the servers' dead_after of " + std::to_string(facts_.dead_after) +
               " ms expected, got " + std::to_string(heartbeat) + " ms";
      });
      return;
    }
    auto const silent = std::find_if(peers_.begin(), peers_.end(), [](auto const& p) { return !p->is_welcome; });
    auto const number = static_cast<int>(silent - peers_.begin());
    throw comm_timeout(number, "remote_store: waited " + std::to_string(options_.patience.count()) + " ms for server " +
                                   std::to_string(number) + " at " + (*silent)->address +
                                   (doubt_.empty() ? "" : ": " + doubt_));
  }

  void end() noexcept {
    stops_ = true;
    wake_.wake();
    thread_.join();
  }

  void run() noexcept {
    std::vector<zmq::pollitem_t> items;
    auto const turn_of = std::min<std::int64_t>(50, options_.heartbeat.count());
    auto const longest = std::max<clock::duration>(2 * options_.heartbeat, std::chrono::milliseconds(200));
    while (!stops_) {
      items.assign(1, {nullptr, wake_.descriptor(), ZMQ_POLLIN, 0});
      for (auto const& p : peers_) items.push_back({p->socket->handle(), 0, ZMQ_POLLIN, 0});
      zmq_poll(items.data(), static_cast<int>(items.size()), static_cast<long>(turn_of));
      wake_.rest();
      auto const turn = clock::now();
      if (turn - turned_at_ > longest)  // this process was stopped: servers' silence is no sign
        for (auto const& p : peers_) p->heard += turn - turned_at_;
      turned_at_ = turn;
      take_submitted();
      for (std::size_t n = 0; n < peers_.size(); ++n) {
        peer& p = *peers_[n];
        try {
          received_message message;
          while (receive_message(*p.socket, false, message)) handle(n, std::move(message));
          keep_alive(n);
          send_queued(p);
          if (!broken_.empty()) p.fail_all(std::make_exception_ptr(server_lost(0, "remote_store: " + broken_)));
        } catch (...) {
          p.fail_all(std::current_exception());
        }
      }
    }
    for (auto const& p : peers_) {
      if (p->is_welcome) send_message(*p->socket, addressed({.kind = message_kind::goodbye}), {});
      p->socket->set(zmq::sockopt::linger, 200);
    }
    take_submitted();
    auto const gone = std::make_exception_ptr(comm_error(-1, "remote_store: the store ended before the answer came"));
    for (auto const& p : peers_) p->fail_all(gone);
    for (auto const& p : peers_) p->socket.reset();
  }

  message_header addressed(message_header h) const {
    h.job = options_.job;
    h.incarnation = incarnation_;
    h.worker = rank_;
    return h;
  }

  /// The server would end the connection.
  void refuse_all(request_group& group, std::size_t bytes) const {
    auto const error = std::make_exception_ptr(
        invalid_argument("remote_store: a message of at most " + std::to_string(facts_.largest_payload) +
                         " bytes expected, which is the server's largest_payload, got " + std::to_string(bytes)));
    for (request& r : group.requests) {
      group.fail(r, error);
      group.finish(r);
    }
    group.close();
  }
  void take_submitted() {
    std::lock_guard const lock(mutex_);
    for (request* const r : submitted_) peers_[r->server]->queued.push_back(r);
    submitted_.clear();
  }

  /// Others than counted requests may wait long: they do not fill the window. Those that wait for the disk are answered many at
  /// once, and lie in the server's memory until then.
  void send_queued(peer& p) {
    if (!p.is_welcome) return;
    while (!p.queued.empty()) {
      request const& next = *p.queued.front();
      if (p.facts->answers_at_once() && peer::is_counted(next)) {
        if (p.updates >= window) return;
      } else if (p.waits_for_server_only(next)) {
        if (p.bytes > 0 && p.bytes + peer::bytes_of_both(next) > most_bytes) return;
      }
      send(p, p.next_sent());
    }
  }
  void send(peer& p, request& r) {
    zmq::message_t payload;
    if (r.payload.size() < copied_below) {
      if (!r.payload.empty()) payload.rebuild(r.payload.data(), r.payload.size());
    } else {
      r.group->open();
      payload.rebuild(
          const_cast<std::byte*>(r.payload.data()), r.payload.size(),
          [](void*, void* group) { static_cast<request_group*>(group)->close(); }, r.group);
    }
    send_message(*p.socket, addressed(r.header), std::move(payload));  // one that is not taken is sent again
  }
  void send_again(peer& p) {
    for (request* const r : p.in_flight) send(p, *r);
  }

  /// Hello until the server knows us, heartbeats from then on; a server that is silent too long is lost.
  void keep_alive(std::size_t n) {
    if (!broken_.empty()) return;  // servers count this worker as dead
    peer& p = *peers_[n];
    auto const now = turned_at_;  // not later: the process may have been stopped since
    if (!p.is_welcome) {
      bool const has_rank = n == 0 || rank_ != no_worker;
      if (has_rank && now - p.greeted >= options_.heartbeat) {
        p.greeted = now;
        send_message(*p.socket, addressed({.kind = message_kind::hello}), {});
      }
    } else if (now - p.beat >= options_.heartbeat) {
      p.beat = now;
      send_message(*p.socket, addressed({.kind = message_kind::heartbeat}), {});
    }
    if (p.is_lost || now - p.heard < options_.patience || !is_ready_) {
      if (p.is_lost) p.fail_all(lost(n));
      return;
    }
    p.is_lost = true;
    p.fail_all(lost(n));
    connect(p);  // ends the old socket, and with it what it had borrowed
  }
  std::exception_ptr lost(std::size_t n) const {
    std::string const& doubt = peers_[n]->doubt;
    return std::make_exception_ptr(
        server_lost(static_cast<int>(n), "remote_store: server " + std::to_string(n) + " at " + peers_[n]->address +
                                             " has not " + (doubt.empty() ? "answered" : "welcomed this worker") +
                                             " for " + std::to_string(options_.patience.count()) + " ms" +
                                             (doubt.empty() ? "" : ": " + doubt)));
  }

  void handle(std::size_t n, received_message&& message) {
    peer& p = *peers_[n];
    auto const header = message.frames == message_frames ? header_in(bytes_of(message.head)) : std::nullopt;
    if (!header || header->payload_bytes != message.payload.size()) return;
    if (header->incarnation != incarnation_) return;
    // Not a refusal: a worker that is refused again and again has lost its server.
    if (header->error != message_error::unknown_worker && header->error != message_error::wrong_job) {
      p.heard = clock::now();
      p.is_lost = false;
    }
    switch (header->kind) {
      case message_kind::welcome: return welcome(n, *header, message.payload);
      case message_kind::heartbeat:
        if (n == 0) dead_workers_ = header->version;
        if ((header->flags & connection_is_new) != 0) send_again(p);
        return;
      case message_kind::error:
        if (header->error == message_error::unknown_worker) return greet_again(p, message.payload);
        if (header->error == message_error::wrong_job) return refuse(text_of(message.payload));
        p.answer(*header, message.payload);
        return;
      case message_kind::acknowledge:
        uses_keys_ = p.answer(*header, message.payload) == message_kind::register_key || uses_keys_;
        return;
      default: return;
    }
  }
  void welcome(std::size_t n, message_header const& h, zmq::message_t const& payload) {
    auto const facts = welcome_in(bytes_of(payload));
    if (!facts) return;
    if (facts->number != n)
      return refuse("server " + std::to_string(facts->number) + " listens at the address of server " +
                    std::to_string(n) + ", " + peers_[n]->address);
    peer& p = *peers_[n];
    std::string const other = p.facts ? difference(*facts, *p.facts) : "";
    if (!other.empty() || (is_ready_ && facts->largest_payload < facts_.largest_payload))
      return refuse(named(n) + " was started again with other options" + (other.empty() ? "" : ": " + other));
    if (n == 0 && directory_.exchange(facts->directory) != facts->directory && uses_keys_)
      return refuse(named(0) + " was started again without its keys");
    bool const is_first = !p.is_welcome;
    p.doubt.clear();
    p.facts = *facts;
    {
      std::lock_guard const lock(mutex_);
      if (n == 0) rank_ = h.worker;
      p.is_welcome = true;
      if (!p.was_welcome) ++welcomes_;
      p.was_welcome = true;
      if (!is_ready_ && welcomes_ == peers_.size()) compare_servers();
    }
    welcomed_.notify_all();
    if (is_first) send_again(p);
  }
  /// When all are known.
  void compare_servers() {
    facts_ = *peers_[0]->facts;
    for (std::size_t n = 1; n < peers_.size(); ++n) {
      server_welcome const& facts = *peers_[n]->facts;
      facts_.largest_payload = std::min(facts_.largest_payload, facts.largest_payload);
      facts_.is_durable = facts_.is_durable || facts.is_durable;
      if (std::string const other = difference(*peers_[0]->facts, facts); !other.empty())
        refusal_ = named(0) + " and " + named(n) + " differ: " + other;
    }
    is_ready_ = true;
  }
  std::string named(std::size_t n) const { return "server " + std::to_string(n) + " at " + peers_[n]->address; }
  void greet_again(peer& p, zmq::message_t const& payload) {
    std::lock_guard const lock(mutex_);
    if (p.is_welcome) p.greeted = {};
    p.is_welcome = false;
    p.doubt = doubt_ = text_of(payload);
  }
  /// For good: calls fail.
  void refuse(std::string_view why) {
    std::lock_guard const lock(mutex_);
    if (is_ready_) broken_ = why;
    refusal_ = why;
    welcomed_.notify_all();
  }

  worker_options options_;
  std::uint64_t incarnation_;
  std::atomic<std::uint32_t> rank_;
  zmq::context_t context_{1};
  std::vector<std::unique_ptr<peer>> peers_;
  server_welcome facts_;
  std::atomic<std::uint64_t> directory_{0};
  bool uses_keys_ = false;  // of the link's thread: server 0 has given this worker the number of a key
  std::string broken_;      // of the link's thread: why all requests fail
  clock::time_point turned_at_ = clock::now();
  std::atomic<std::uint64_t> dead_workers_{0};
  std::atomic<bool> is_ready_{false};  // every server has welcomed this worker once
  wake_pipe wake_;
  std::atomic<bool> stops_{false};
  std::mutex mutex_;  // what follows
  std::condition_variable welcomed_;
  std::vector<request*> submitted_;
  std::uint64_t sequence_ = 0;
  std::size_t welcomes_ = 0;
  std::string refusal_, doubt_;
  std::thread thread_;
};

}  // namespace pushpull::remote::detail
