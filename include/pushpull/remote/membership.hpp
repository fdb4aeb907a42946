/// @file
/// The workers of a job as one server sees them: who came, who is alive, who has left or died.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/remote/message.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

using server_clock = std::chrono::steady_clock;

/// Where a worker is in its life.
enum class worker_state {
  absent,  ///< Its rank was not given to anybody yet.
  alive,
  left,  ///< It said goodbye.
  dead   ///< It was silent too long.
};

/// A barrier or command that is done: it is answered the same again.
struct done_request {
  std::uint64_t sequence = 0;
  message_error error = message_error::none;
  std::string text = {};  ///< Of the error.
};

/// A worker.
struct member {
  worker_state state = worker_state::absent;
  std::uint64_t incarnation = 0;
  std::string connection;          ///< Where answers go.
  bool is_new_connection = false;  ///< Requests before it may be lost: the next heartbeat tells the worker so.
  bool is_awaited = false;         ///< Known from before the server was started again, and not heard since.
  server_clock::time_point heard = {};
  std::deque<done_request> done = {};  ///< Its last barriers and commands.

  /// One that is done; null if it is not. Requests of several threads may be done in another order than that of their numbers.
  done_request const* find_done(std::uint64_t sequence) const {
    auto const at =
        std::find_if(done.begin(), done.end(), [&](done_request const& d) { return d.sequence == sequence; });
    return at == done.end() ? nullptr : &*at;
  }
  done_request const& note(done_request d) {
    if (done.size() == most_done) done.pop_front();
    return done.emplace_back(std::move(d));
  }
  static constexpr std::size_t most_done = 256;  // more than a worker has threads that wait
};

/// A worker that a server remembers when it is started again.
struct known_worker {
  worker_state state = worker_state::absent;
  std::uint64_t incarnation = 0;
};

/// Ranks beyond which a server numbers nobody.
inline constexpr std::uint32_t most_workers = 65536;

/// All workers, by rank. Belongs to the server's thread.
class membership {
 public:
  /// @param expected  Workers that the job has at least.
  membership(std::uint32_t expected, std::chrono::milliseconds dead_after)
      : members_(expected), expected_(expected), dead_after_(dead_after) {}

  std::size_t size() const { return members_.size(); }
  member& operator[](std::size_t rank) { return members_[rank]; }
  member const& operator[](std::size_t rank) const { return members_[rank]; }
  bool is_alive(std::size_t rank) const { return members_[rank].state == worker_state::alive; }
  std::size_t count(worker_state state) const {
    return static_cast<std::size_t>(
        std::count_if(members_.begin(), members_.end(), [&](member const& m) { return m.state == state; }));
  }
  /// Whether as many workers as the job has have come, even if some have left or died since.
  bool is_complete() const { return members_.size() - count(worker_state::absent) >= expected_; }
  /// Whether so many have come since the server was started.
  bool was_complete() const {
    auto const come = std::count_if(members_.begin(), members_.end(),
                                    [](member const& m) { return m.state != worker_state::absent && !m.is_awaited; });
    return static_cast<std::size_t>(come) >= expected_;
  }
  /// Whether workers have come and all have left or died.
  bool has_ended() const { return is_complete() && count(worker_state::alive) == 0; }

  /// The worker that a message is from, if it has said hello. Notes that it was heard.
  member* find(message_header const& h, std::string const& connection, server_clock::time_point now) {
    if (h.worker >= members_.size()) return nullptr;
    member& m = members_[h.worker];
    if (m.state != worker_state::alive || m.incarnation != h.incarnation) return nullptr;
    if (m.is_awaited) return nullptr;  // it says hello, and compares what it knows of the server
    m.heard = now;
    if (m.connection != connection) {
      m.connection = connection;
      m.is_new_connection = true;
    }
    return &m;
  }

  /// The rank of a worker that says hello: its old one if it comes back, else the one that it asks for.
  /// @param rank  no_worker: the first that is free. @returns none if it is that of a living worker, or cannot be told yet
  std::optional<std::uint32_t> rank_of(std::uint32_t rank, std::uint64_t incarnation,
                                       server_clock::time_point now) const {
    if (rank == no_worker) {
      auto const at = std::find_if(members_.begin(), members_.end(), [&](member const& m) {
        return m.state != worker_state::absent && m.incarnation == incarnation;
      });
      if (at == members_.end() && has_awaited()) return std::nullopt;  // they have their ranks
      rank = at != members_.end() ? static_cast<std::uint32_t>(at - members_.begin()) : first_free();
    }
    if (rank >= most_workers) return std::nullopt;
    bool const may_live =
        now < silence_counts_at_ || (rank < members_.size() && now - members_[rank].heard < dead_after_);
    if (is_replaced(rank, incarnation) && may_live) return std::nullopt;
    return rank;
  }
  /// Whether a rank is alive, and was heard, in another process.
  bool is_replaced(std::uint32_t rank, std::uint64_t incarnation) const {
    return rank < members_.size() && is_alive(rank) && !members_[rank].is_awaited &&
           members_[rank].incarnation != incarnation;
  }
  /// Takes a worker in. @param rank  See rank_of. @returns whether it is back: the server knows it, and had counted it as dead
  bool admit(std::uint32_t rank, std::uint64_t incarnation, std::string const& connection,
             server_clock::time_point now) {
    if (rank >= members_.size()) members_.resize(rank + std::size_t{1});
    member& m = members_[rank];
    bool const is_known = m.incarnation == incarnation;
    bool const is_back = is_known && m.state != worker_state::alive;
    came_back_ = came_back_ || (is_known && m.is_awaited);
    auto done = is_known ? std::move(m.done) : std::deque<done_request>();
    m = {.state = worker_state::alive, .incarnation = incarnation, .connection = connection, .heard = now};
    m.done = std::move(done);  // it sends again what was not answered
    return is_back;
  }

  /// For a server that is started again.
  std::vector<known_worker> known() const {
    std::vector<known_worker> all;
    for (member const& m : members_) all.push_back({m.state, m.incarnation});
    return all;
  }
  /// Remembers workers. Those that were alive have time to come back. If none of them does, the job has been started again
  /// too, and all ranks are to come anew; the same if none was alive.
  void restore(std::vector<known_worker> const& all, server_clock::time_point now) {
    if (std::none_of(all.begin(), all.end(), [](auto const& k) { return k.state == worker_state::alive; })) return;
    members_.resize(std::max(members_.size(), all.size()));
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      member& m = members_[rank];
      m.state = all[rank].state;
      m.incarnation = all[rank].incarnation;
      m.is_awaited = m.state == worker_state::alive;
      m.heard = now + 4 * dead_after_;
    }
  }

  /// The server has read no message for long: it was busy, or stopped. Living workers have time to be heard before silence counts.
  /// A server that is busy all the time has not more than one such time between two calls of bury that count.
  void wait_for_signs(server_clock::time_point now) {
    if (has_looked_) silence_counts_at_ = now + dead_after_;
    has_looked_ = false;
  }
  /// Whether none of those that were awaited has come back in time, and ranks are to come anew. Who had left stays so if
  /// processes with ranks of their own have come: it may be that none takes its place.
  bool begin_anew(server_clock::time_point now) {
    if (came_back_ || now < silence_counts_at_ ||
        std::none_of(
            members_.begin(), members_.end(),
            [&](member const& m) { return m.is_awaited && now - m.heard >= dead_after_; }))
      return false;
    bool const some_came = count(worker_state::alive) > awaited();
    for (member& m : members_)
      if (m.is_awaited || m.state == worker_state::dead || (m.state == worker_state::left && !some_came)) m = {};
    return true;
  }
  /// Workers that have become dead by now.
  std::vector<std::uint32_t> bury(server_clock::time_point now) {
    std::vector<std::uint32_t> dead;
    if (now < silence_counts_at_) return dead;
    has_looked_ = true;
    for (std::size_t rank = 0; rank < members_.size(); ++rank) {
      member& m = members_[rank];
      if (m.state != worker_state::alive || now - m.heard < dead_after_) continue;
      m.state = worker_state::dead;
      m.is_awaited = false;
      dead.push_back(static_cast<std::uint32_t>(rank));
    }
    return dead;
  }

 private:
  bool has_awaited() const { return awaited() > 0; }
  std::size_t awaited() const {
    return static_cast<std::size_t>(
        std::count_if(members_.begin(), members_.end(), [](member const& m) { return m.is_awaited; }));
  }
  std::uint32_t first_free() const {
    for (auto const state : {worker_state::absent, worker_state::dead, worker_state::left})
      for (std::size_t rank = 0; rank < members_.size(); ++rank)
        if (members_[rank].state == state && (state != worker_state::left || is_complete()))
          return static_cast<std::uint32_t>(rank);
    return static_cast<std::uint32_t>(members_.size());
  }

  std::vector<member> members_;
  std::uint32_t expected_;
  std::chrono::milliseconds dead_after_;
  bool came_back_ = false;  // one that was awaited
  bool has_looked_ = true;  // for the dead, since the last wait for signs
  server_clock::time_point silence_counts_at_ = {};
};

}  // namespace pushpull::remote::detail
