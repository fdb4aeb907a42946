/// @file
/// The router of a server: turns messages into operations on its pieces, and knows the workers.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <zmq.hpp>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/remote/answers.hpp>
#include <pushpull/remote/barrier.hpp>
#include <pushpull/remote/control_service.hpp>
#include <pushpull/remote/frames.hpp>
#include <pushpull/remote/freed_memory.hpp>
#include <pushpull/remote/key_directory.hpp>
#include <pushpull/remote/membership.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/remote/options.hpp>
#include <pushpull/remote/piece_service.hpp>
#include <pushpull/remote/served_store.hpp>
#include <pushpull/remote/snapshot_keeper.hpp>
#include <pushpull/remote/welcome.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// A server's socket and everything behind it. One thread runs it.
class router {
 public:
  /// Listens from now on. @throws comm_error if it cannot; invalid_argument
  /// @param keeper  Of snapshots; null: none. @throws also file_error
  router(served_store& store, server_options options, std::unique_ptr<snapshot_keeper> keeper)
      : options_(std::move(options)),
        store_(store),
        members_(options_.workers, options_.dead_after),
        answers_(socket_, members_),
        service_(store, members_, answers_, options_.consistency),
        control_(store, answers_, options_.number, options_.on_command),
        barrier_(members_, answers_),
        keeper_(std::move(keeper)) {
    keep_freed_memory();
    has_new_keys_ = options_.number == 0;
    if (keeper_ != nullptr) {
      std::vector<known_worker> workers;
      keeper_->restore(service_.pieces(), keys_, workers, store_);
      members_.restore(workers, server_clock::now());
      answers_.keeps_updates = keeper_->is_durable();
      service_.keeper = keeper_.get();
      control_.keeps_rules = true;
    }
    try {
      socket_.set(zmq::sockopt::router_mandatory, 1);
      // Messages of one connection. Further ones wait in its sender; answers beyond are dropped: nobody reads them.
      socket_.set(zmq::sockopt::rcvhwm, 256);
      socket_.set(zmq::sockopt::sndhwm, 65536);
      socket_.set(zmq::sockopt::linger, 200);
      socket_.set(zmq::sockopt::maxmsgsize, static_cast<std::int64_t>(options_.largest_payload) + 4096);
      if (!options_.curve.secret_key.empty()) {
        socket_.set(zmq::sockopt::curve_server, 1);
        socket_.set(zmq::sockopt::curve_secretkey, options_.curve.secret_key);
      }
      socket_.bind(options_.address);
      address_ = socket_.get(zmq::sockopt::last_endpoint);
    } catch (zmq::error_t const& failure) {
      throw comm_error(static_cast<int>(options_.number),
                       "server: cannot listen at " + options_.address + ": " + failure.what());
    }
  }

  std::string const& address() const { return address_; }
  /// From any thread: `run` returns soon.
  void stop() noexcept { stops_ = true; }

  /// Serves until `stop`, or until all workers have left or died.
  void run() {
    zmq::pollitem_t item{socket_.handle(), 0, ZMQ_POLLIN, 0};
    while (!stops_) {
      zmq_poll(&item, 1, 20);  // a signal may end it early
      auto const turn = server_clock::now();
      constexpr std::chrono::milliseconds least(100);  // longer than a turn in which nothing comes
      if (turn - turned_at_ > std::max(options_.dead_after / 2, least)) members_.wait_for_signs(turn);
      turned_at_ = turn;
      bool drained = false;
      for (int i = 0; i < 256 && !drained && !stops_; ++i) {
        received_message message;
        drained = !receive_message(socket_, true, message);
        if (!drained) handle(std::move(message));
      }
      // Not with messages waiting: what a worker has sent is a sign of life that was not read yet.
      if (drained) bury();
      save_if_due();
      if (ends_at_ && server_clock::now() >= *ends_at_) break;
    }
    if (keeper_ == nullptr) return;
    if (changes() > saved_changes_ || service_.has_new_values) save();
    if (has_new_members_) keeper_->save_workers(members_.known());
  }

 private:
  void handle(received_message&& message) {
    auto const begin = server_clock::now();
    auto const header = message.frames == message_frames ? header_in(bytes_of(message.head)) : std::nullopt;
    if (!header || header->payload_bytes != message.payload.size()) {
      ++answers_.counts.malformed;
      return;
    }
    std::string const connection(text_of(message.connection));
    std::size_t const bytes = message.payload.size();
    dispatch(*header, connection, std::move(message.payload));
    kind_counts& counts = answers_.counts.kinds[static_cast<std::size_t>(header->kind)];
    ++counts.messages;
    counts.payload_bytes += bytes;
    double const seconds = std::chrono::duration<double>(server_clock::now() - begin).count();
    counts.seconds += seconds;
    control_.profiler.count(header->kind, bytes, seconds);
  }

  void dispatch(message_header const& h, std::string const& connection, zmq::message_t&& payload) {
    if (h.job != options_.job)
      return answers_.refuse(connection, h, message_error::wrong_job, "this server belongs to another job");
    if (h.kind == message_kind::hello) return hello(h, connection);
    member* const worker = members_.find(h, connection, server_clock::now());
    if (worker == nullptr)
      return answers_.refuse(connection, h, message_error::unknown_worker, "the server does not know the worker");
    if (service_.handle(h, std::move(payload)) || control(h, *worker, payload)) return;
    switch (h.kind) {
      case message_kind::heartbeat: return heartbeat(h, *worker);
      case message_kind::goodbye: return goodbye(h, *worker);
      case message_kind::snapshot: return snapshot(h);
      default: break;
    }
    if (options_.number != 0)
      return answers_.fail(h, message_error::invalid_argument, "this request is one for server 0");
    switch (h.kind) {
      case message_kind::register_key: return register_key(h, payload);
      case message_kind::key_ready: return key_ready(h);
      case message_kind::barrier: return barrier_.enter(h);
      default: return answers_.fail(h, message_error::invalid_argument, "no request that a worker makes");
    }
  }

  /// @returns false if it is another request
  bool control(message_header const& h, member& worker, zmq::message_t const& payload) {
    if (h.kind != message_kind::optimizer) return control_.handle(h, worker, payload);
    std::string const rule = store_.rule_text();
    control_.handle(h, worker, payload);
    must_save_ = must_save_ || rule != store_.rule_text();  // values alone would go on without it
    return true;
  }
  void hello(message_header const& h, std::string const& connection) {
    auto const now = server_clock::now();
    auto const rank = members_.rank_of(h.worker, h.incarnation, now);
    if (!rank)
      return answers_.refuse(connection, h, message_error::unknown_worker,
                             h.worker == no_worker
                                 ? "the server was started again, and waits for workers that it knows"
                                 : "a worker of rank " + std::to_string(h.worker) + " is alive in another process");
    bool const is_late = members_.was_complete();
    if (members_.is_replaced(*rank, h.incarnation)) {  // it died, which no time was left to notice
      members_[*rank].state = worker_state::dead;
      depart(*rank, true);
    }
    bool const is_back = members_.admit(*rank, h.incarnation, connection, now);
    service_.on_arrival(*rank, h.incarnation, is_back, is_late);
    has_new_members_ = true;
    ends_at_.reset();
    message_header answered = h;
    answered.worker = *rank;
    answers_.send(answered, message_kind::welcome, frame_of(to_text(welcome())));
  }
  server_welcome welcome() const {
    server_welcome w{.number = options_.number, .workers = options_.workers, .element = store_.element()};
    w.has_updater = store_.has_updater();
    w.whole_keys = store_.whole_keys();
    w.consistency = static_cast<std::uint8_t>(options_.consistency.index());
    w.is_durable = answers_.keeps_updates;
    w.dead_after = static_cast<std::uint32_t>(std::min<std::int64_t>(options_.dead_after.count(), 0xFFFFFFFF));
    w.largest_payload = options_.largest_payload;
    w.directory = options_.number == 0 ? keys_.identity : 0;
    return w;
  }
  void heartbeat(message_header const& h, member& worker) {
    bool const lost_requests = std::exchange(worker.is_new_connection, false);
    answers_.send(h, message_kind::heartbeat, {}, lost_requests ? connection_is_new : std::uint8_t{0},
                  members_.count(worker_state::dead));
  }
  void goodbye(message_header const& h, member& worker) {
    worker.state = worker_state::left;
    depart(h.worker, false);
  }
  void bury() {
    if (members_.begin_anew(turned_at_)) {
      has_new_members_ = true;
      choose_senders();
    }
    for (std::uint32_t const worker : members_.bury(turned_at_)) depart(worker, true);
  }
  void depart(std::uint32_t worker, bool died) {
    has_new_members_ = true;
    service_.on_departure();
    barrier_.leave(worker);
    for (auto& entry : keys_.entries())
      if (entry.sender == worker) entry.sender = no_worker;
    choose_senders();
    if (members_.has_ended())
      ends_at_ = server_clock::now() + (died ? options_.return_within : std::chrono::milliseconds(0));
  }

  void register_key(message_header const& h, zmq::message_t const& payload) {
    auto const asked = key_in(h, bytes_of(payload));
    if (!asked || asked->element != store_.element())
      return answers_.fail(h, message_error::invalid_argument,
                           "init: a key of elements of type " + std::string(element_name(store_.element())) +
                               " expected, " +
                               (asked ? shown(asked->name) + " of shape " + shape_text(*asked) : "none") + " came");
    std::size_t const known = keys_.entries().size();
    std::int64_t const number = keys_.number_of(*asked);
    has_new_keys_ = has_new_keys_ || keys_.entries().size() > known;
    auto& entry = *keys_.find(number);
    if (entry.key.cut != asked->cut)
      return answers_.fail(
          h, message_error::invalid_argument,
          "init: " + shown(asked->name) + " is in " + entry.key.cut + ", this worker looks for " + asked->cut);
    if (!(entry.key == *asked))
      return answers_.fail(h, message_error::shape_mismatch,
                           "init: " + shown(asked->name) + " has shape " + shape_text(entry.key) + ", one of shape " +
                               shape_text(*asked) + " came");
    message_header answered = h;
    answered.key = number;
    if ((h.flags & value_is_missing) != 0 && entry.is_ready) {
      entry.is_ready = false;
      entry.had_value = true;
      entry.sender = h.worker;
    }
    if (entry.is_ready) return answers_.send(answered, message_kind::acknowledge, {}, key_has_value);
    std::erase_if(entry.askers, [&](message_header const& asker) {  // a message that comes again
      return asker.worker == h.worker && asker.sequence == h.sequence;
    });
    entry.askers.push_back(answered);
    choose_sender(entry);
  }
  /// Worker 0 sends the value; if it is gone, or gave it before a server lost it, the first of those that have asked.
  void choose_sender(key_directory::entry& entry) {
    if (entry.is_ready || entry.askers.empty()) return;
    if (entry.sender != no_worker && members_.is_alive(entry.sender)) {
      auto const again = std::find_if(entry.askers.begin(), entry.askers.end(),
                                      [&](message_header const& h) { return h.worker == entry.sender; });
      if (again != entry.askers.end()) appoint(entry, again);
      return;
    }
    auto const chosen = std::min_element(entry.askers.begin(), entry.askers.end(),
                                         [](auto const& a, auto const& b) { return a.worker < b.worker; });
    bool const first_may_come = members_.is_alive(0) || members_[0].state == worker_state::absent;
    if (chosen->worker == 0 || !first_may_come || entry.had_value) appoint(entry, chosen);
  }
  void appoint(key_directory::entry& entry, std::vector<message_header>::iterator asker) {
    entry.sender = asker->worker;
    acknowledge(*asker, asker_sends_value);
    entry.askers.erase(asker);
  }
  /// When the keys are on the medium.
  void acknowledge(message_header const& h, std::uint8_t flags) {
    if (has_new_keys_ && keeper_ != nullptr) return answers_.keep(h, flags);
    answers_.send(h, message_kind::acknowledge, {}, flags);
  }
  void choose_senders() {
    for (auto& entry : keys_.entries()) {
      std::erase_if(entry.askers, [&](message_header const& h) { return !members_.is_alive(h.worker); });
      choose_sender(entry);
    }
  }
  void key_ready(message_header const& h) {
    auto* const entry = keys_.find(h.key);
    if (entry == nullptr)
      return answers_.fail(h, message_error::unknown_key, "no key has number " + std::to_string(h.key));
    if ((h.flags & value_failed) != 0) {
      if (!entry->is_ready && entry->sender == h.worker) entry->sender = no_worker;
      for (message_header const& asker : std::exchange(entry->askers, {}))
        answers_.fail(
            asker, message_error::failed,
            "init: worker " + std::to_string(h.worker) + " could not send the value of " + shown(entry->key.name));
      return answers_.send(h, message_kind::acknowledge);
    }
    has_new_keys_ = has_new_keys_ || !(entry->is_ready || entry->had_value);
    entry->is_ready = true;
    for (message_header const& asker : std::exchange(entry->askers, {})) acknowledge(asker, key_has_value);
    acknowledge(h, 0);
  }

  /// After a failure, as on a full disk, what waits for the medium waits for the next attempt.
  void save_if_due() {
    if (keeper_ == nullptr) return;
    auto const now = server_clock::now();
    bool const has_updates = changes() > saved_changes_;
    bool const is_time = now - saved_at_ >= keeper_->every();
    bool const is_due =
        must_save_ || (has_updates && keeper_->is_durable()) || ((has_updates || service_.has_new_values) && is_time);
    bool const waits = is_due || has_new_keys_ || has_new_members_ || answers_.has_kept();
    if (!waits || now < next_attempt_) return;
    try {
      if (has_new_members_) keeper_->save_workers(members_.known());
      has_new_members_ = false;
      if (has_new_keys_) keeper_->save_keys(keys_);
      has_new_keys_ = false;
      if (is_due) {
        save();
      } else {
        commit_values();
      }
      answers_.release();
      pause_ = {};
    } catch (std::exception const&) {
      ++answers_.counts.unsaved;
      pause_ = std::clamp<std::chrono::milliseconds>(2 * pause_, std::chrono::seconds(1), std::chrono::seconds(30));
      next_attempt_ = server_clock::now() + pause_;
    }
  }
  void commit_values() {
    must_save_ = true;  // if it throws, nobody knows which values are on the medium
    keeper_->commit_values();
    must_save_ = false;
  }
  std::uint64_t changes() const { return service_.changes + control_.changes; }
  void save() {
    keeper_->save(service_.pieces(), store_.settings());
    saved_at_ = server_clock::now();
    saved_changes_ = changes();
    next_attempt_ = {};
    service_.has_new_values = false;
    must_save_ = false;
  }
  void snapshot(message_header const& h) {
    if (keeper_ == nullptr)
      return answers_.fail(h, message_error::invalid_argument,
                           "save_snapshots: the server was given no folder for them");
    try {
      save();
      answers_.send(h, message_kind::acknowledge);
    } catch (std::exception const& thrown) {
      answers_.fail(h, message_error::failed, thrown.what());
    }
  }

  server_options options_;
  zmq::context_t context_{1};
  zmq::socket_t socket_{context_, zmq::socket_type::router};
  std::string address_;
  served_store& store_;
  membership members_;
  answer_sender answers_;
  piece_service service_;
  control_service control_;
  server_barrier barrier_;
  key_directory keys_;
  std::unique_ptr<snapshot_keeper> keeper_;
  bool has_new_keys_ = false;     // since keys were saved
  bool has_new_members_ = false;  // since workers were saved
  bool must_save_ = false;        // a snapshot, at the next opportunity
  std::uint64_t saved_changes_ = 0;
  std::chrono::milliseconds pause_{0};  // after an attempt that failed
  server_clock::time_point next_attempt_ = {};
  server_clock::time_point saved_at_ = server_clock::now();
  server_clock::time_point turned_at_ = server_clock::now();
  std::optional<server_clock::time_point> ends_at_;
  std::atomic<bool> stops_{false};
};

}  // namespace pushpull::remote::detail
