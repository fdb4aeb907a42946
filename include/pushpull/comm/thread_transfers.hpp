/// @file
/// The transfers between ranks that are threads of one process.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <pushpull/comm/thread_ranks.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

struct thread_operation;

/// One end of a transfer. Its operation owns it; a channel lists it until the transfer is done.
struct thread_post {
  void* memory;
  std::size_t bytes;
  int peer;
  bool sends;
  bool done = false;
  thread_operation* operation = nullptr;
  thread_post* next = nullptr;
};

/// A call that takes a group. Used again and again, so that calls do not allocate.
struct thread_operation {
  char const* call = "";
  int rank = 0;
  std::uint64_t group = 0;  // its group's number on this rank
  std::size_t left = 0;     // posts that are not done
  bool collective = false, withdrawn = false;
  std::vector<thread_post> posts;                           // not changed while channels list them
  std::optional<thread_ranks::clock::time_point> deadline;  // from the first time that somebody asks for it

  double* numbers = nullptr;  // of a sum
  std::size_t count = 0;
  std::vector<double> of_others;  // in the order of the ranks
};

/// Posts of one direction between two ranks, in their order.
struct thread_posts {
  thread_post* first = nullptr;
  thread_post* last = nullptr;

  void append(thread_post& post) {
    (first == nullptr ? first : last->next) = &post;
    last = &post;
  }
  void pop() { first = first->next; }
};

/// Matches what is sent with what is expected. The receiver copies whenever it is in a call that waits or asks.
class thread_transfers : public thread_ranks {
 public:
  std::uint64_t open_group(int rank) {
    auto const held = lock();
    return ++at(rank).opened_groups;
  }
  void end_group(int rank, std::uint64_t number) {
    auto const held = lock();
    at(rank).ended_groups = std::max(at(rank).ended_groups, number);
  }

  thread_operation& take(int rank, char const* call, std::uint64_t group) {
    auto const held = lock();
    throw_if_failed(call, rank);
    rank_state& mine = at(rank);
    if (mine.free.empty()) {
      mine.free.reserve(mine.operations.size() + 1);  // so that giving back does not allocate
      mine.operations.push_back(std::make_unique<thread_operation>());
      mine.free.push_back(mine.operations.back().get());
    }
    thread_operation& operation = *mine.free.back();
    mine.free.pop_back();
    operation.call = call;
    operation.rank = rank;
    operation.group = group;
    operation.left = 0;
    operation.withdrawn = false;
    operation.numbers = nullptr;
    operation.posts.clear();
    operation.deadline.reset();
    return operation;
  }

  /// @param collective  every rank makes the call at this place; the order of exchanges is another
  void post(thread_operation& operation, bool collective) {
    auto const held = lock();
    throw_if_failed(operation.call, operation.rank);
    operation.collective = collective;
    for (thread_post& post : operation.posts) {
      post.operation = &operation;
      channel& c = channel_of(post);
      (post.sends ? c.sends : c.receives).append(post);
      changed(post.peer).notify_all();
    }
    operation.left = operation.posts.size();
  }

  /// Whether all posts of `operation` are done; waits for them if `waits`.
  bool finish(thread_operation& operation, bool waits) {
    auto held = lock();
    int const rank = operation.rank;
    if (operation.group > at(rank).ended_groups)
      throw comm_error(rank, call_on_rank(operation.call, rank) + "its group has not ended");
    while (true) {
      if (operation.left == 0) return true;
      if (failed()) {
        withdraw(held, operation);
        throw_if_failed(operation.call, rank);
      }
      if (receive(held, rank)) continue;  // others may have acted meanwhile
      auto const now = clock::now();
      if (!operation.deadline) operation.deadline = now + options().deadline;
      if (now >= *operation.deadline) {
        time_out(silent_peers(operation), rank, operation.call);
        continue;
      }
      if (!waits) return false;
      changed(rank).wait_until(held, *operation.deadline);
    }
  }

  /// Nothing touches the memory of `operation` afterwards.
  void give_back(thread_operation& operation) noexcept {
    auto held = lock();
    if (operation.left > 0 && !operation.withdrawn) {
      set_failure(
          operation.rank, operation.rank,
          {"rank ", std::to_string(operation.rank), " dropped a request of ", operation.call, " before it was ready"});
      withdraw(held, operation);
    }
    at(operation.rank).free.push_back(&operation);
  }

 protected:
  thread_transfers(int ranks, comm::threads_options const& options)
      : thread_ranks(ranks, options),
        states_(static_cast<std::size_t>(ranks)),
        channels_(2 * static_cast<std::size_t>(ranks) * static_cast<std::size_t>(ranks)) {}
  ~thread_transfers() = default;

  /// Copies what was sent to `rank` and is expected there. Returns whether there may be something new to see.
  bool receive(lock_type& held, int rank) {
    bool any = false;
    for (int from = 0; from < size(); ++from)
      for (bool const collective : {false, true})
        while (receive_first(held, between(from, rank, collective))) any = true;
    return any || failed();
  }

 private:
  struct rank_state {
    std::uint64_t opened_groups = 0, ended_groups = 0;
    std::vector<std::unique_ptr<thread_operation>> operations;
    std::vector<thread_operation*> free;
  };
  struct channel {
    thread_posts sends, receives;
    bool copying = false;  // from the first of `sends` to the first of `receives`, without the lock
  };

  rank_state& at(int rank) { return states_[static_cast<std::size_t>(rank)]; }
  channel& between(int from, int to, bool collective) {
    return channels_[static_cast<std::size_t>(2 * (from * size() + to) + (collective ? 1 : 0))];
  }
  channel& channel_of(thread_post const& post) {
    int const rank = post.operation->rank;
    bool const collective = post.operation->collective;
    return post.sends ? between(rank, post.peer, collective) : between(post.peer, rank, collective);
  }

  bool receive_first(lock_type& held, channel& c) {
    if (failed() || c.copying || c.sends.first == nullptr || c.receives.first == nullptr) return false;
    thread_post& send = *c.sends.first;
    thread_post& destination = *c.receives.first;
    if (!match(send, destination)) return false;
    if (send.bytes > 0) {
      c.copying = true;
      held.unlock();
      std::memcpy(destination.memory, send.memory, send.bytes);
      held.lock();
      c.copying = false;
    }
    c.sends.pop();
    c.receives.pop();
    for (thread_post* const end : {&send, &destination}) {
      end->done = true;
      --end->operation->left;
      changed(end->operation->rank).notify_all();
    }
    return true;
  }
  bool match(thread_post const& send, thread_post const& destination) {
    int const from = send.operation->rank, to = destination.operation->rank;
    std::string_view const call = send.operation->call, other_call = destination.operation->call;
    if (call != other_call)
      set_failure(
          from, to,
          {"rank ", std::to_string(from), " is in ", call, " and rank ", std::to_string(to), " in ", other_call});
    else if (send.bytes != destination.bytes)
      set_failure(from, to,
                  {"rank ", std::to_string(from), " sends ", std::to_string(send.bytes), " bytes to rank ",
                   std::to_string(to), ", which expects ", std::to_string(destination.bytes)});
    return !failed();
  }

  /// After a failure nothing is copied any more, but for copies that have begun.
  void withdraw(lock_type& held, thread_operation& operation) {
    if (operation.withdrawn) return;
    for (thread_post const& post : operation.posts)
      changed(operation.rank).wait(held, [&] { return post.done || !channel_of(post).copying; });
    operation.withdrawn = true;
  }

  static std::vector<int> silent_peers(thread_operation const& operation) {
    std::vector<int> silent;
    for (thread_post const& post : operation.posts)
      if (!post.done && std::ranges::count(silent, post.peer) == 0) silent.push_back(post.peer);
    return silent;
  }

  std::vector<rank_state> states_;
  std::vector<channel> channels_;
};

}  // namespace pushpull::detail
