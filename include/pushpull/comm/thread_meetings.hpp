/// @file
/// The calls in which ranks that are threads of one process all meet.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <pushpull/comm/thread_ranks.hpp>
#include <pushpull/comm/thread_transfers.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// A rank's part in a meeting. Others read `data` while `readers` counts them.
struct thread_desk {
  char const* call = "";
  int root = 0;
  std::size_t agreed_bytes = 0;  // the same on all ranks
  std::byte const* data = nullptr;
  std::size_t bytes = 0;
  std::shared_ptr<void> const* memory = nullptr;

  int readers = 0;
  std::uint64_t arrivals = 0;
};

/// Everything that the ranks share.
class thread_meetings final : public thread_transfers {
 public:
  thread_meetings(int ranks, comm::threads_options const& options)
      : thread_transfers(ranks, options), desks_(static_cast<std::size_t>(ranks)) {}

  /// All ranks lay something on their desks, then each calls `read`, without the lock, then all leave.
  template <class Lay, class Read>
  void meet(int rank, Lay const& lay, Read const& read) {
    auto held = lock();
    lay(desk(rank));
    throw_if_failed(desk(rank).call, rank);
    arrive(held, rank);
    count_readers(1);
    held.unlock();
    try {
      read();
    } catch (...) {
      held.lock();
      count_readers(-1);
      set_failure(rank, rank, {"rank ", std::to_string(rank), " threw in ", desk(rank).call});
      wait_for_readers(held, rank);
      throw;
    }
    held.lock();
    count_readers(-1);
    arrive(held, rank);
  }
  void meet(int rank, char const* call) {
    auto held = lock();
    throw_if_failed(call, rank);
    desk(rank).call = call;
    desk(rank).root = 0;
    desk(rank).agreed_bytes = 0;
    arrive(held, rank);
  }
  thread_desk const& desk(int rank) const { return desks_[static_cast<std::size_t>(rank)]; }

 private:
  thread_desk& desk(int rank) { return desks_[static_cast<std::size_t>(rank)]; }

  /// Returns when every rank has arrived as often as this one.
  void arrive(lock_type& held, int rank) {
    thread_desk& mine = desk(rank);
    std::uint64_t const ticket = ++mine.arrivals;
    auto const deadline = clock::now() + options().deadline;
    for (int other = 0; other < size(); ++other) {
      if (other == rank) continue;
      if (desk(other).arrivals == ticket) compare(other, rank);
      changed(other).notify_all();
    }
    auto const is_late = [&](thread_desk const& d) { return d.arrivals < ticket; };
    while (failed() || std::ranges::any_of(desks_, is_late)) {
      if (failed()) leave_failed(held, rank);
      if (receive(held, rank)) continue;  // requests of this rank go on meanwhile
      if (clock::now() < deadline) {
        changed(rank).wait_until(held, deadline);
        continue;
      }
      std::vector<int> late;
      for (int other = 0; other < size(); ++other)
        if (is_late(desk(other))) late.push_back(other);
      time_out(late, rank, mine.call);
    }
  }

  void compare(int other, int rank) {
    thread_desk const& theirs = desk(other);
    thread_desk const& mine = desk(rank);
    std::string_view const their_call = theirs.call, my_call = mine.call;
    std::string const them = "rank " + std::to_string(other), me = "rank " + std::to_string(rank);
    if (their_call != my_call)
      set_failure(other, rank, {them, " is in ", their_call, " and ", me, " in ", my_call});
    else if (theirs.root != mine.root)
      set_failure(other, rank,
                  {"the root is rank ", std::to_string(theirs.root), " on ", them, " and rank ",
                   std::to_string(mine.root), " on ", me});
    else if (theirs.agreed_bytes != mine.agreed_bytes)
      set_failure(other, rank,
                  {them, " has ", std::to_string(theirs.agreed_bytes), " bytes and ", me, " has ",
                   std::to_string(mine.agreed_bytes)});
  }

  void count_readers(int change) {
    for (int rank = 0; rank < size(); ++rank) {
      desk(rank).readers += change;
      changed(rank).notify_all();
    }
  }
  void wait_for_readers(lock_type& held, int rank) {
    changed(rank).wait(held, [&] { return desk(rank).readers == 0; });
  }
  /// The memory on this rank's desk ends with its call.
  [[noreturn]] void leave_failed(lock_type& held, int rank) {
    wait_for_readers(held, rank);
    throw_failure(desk(rank).call, rank);
  }

  std::vector<thread_desk> desks_;
};

}  // namespace pushpull::detail
