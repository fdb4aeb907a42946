/// @file
/// The lock of ranks that are threads of one process, their waking, and the first failure.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <initializer_list>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::comm {

/// How long ranks that are threads wait for each other, and which of them share memory.
struct threads_options {
  std::chrono::milliseconds deadline = std::chrono::minutes(5);  ///< A call that waits longer throws comm_timeout.
  int ranks_per_node = 0;  ///< Rank r is on node r / ranks_per_node. Zero: all ranks are on one node.
};

}  // namespace pushpull::comm

namespace pushpull::inline PUSHPULL_ABI::detail {

/// "exchange on rank 3: "
inline std::string call_on_rank(std::string_view call, int rank) {
  return std::string(call) + " on rank " + std::to_string(rank) + ": ";
}

/// One mutex guards everything that the ranks share, except for the memory of callers.
class thread_ranks {
 public:
  using lock_type = std::unique_lock<std::mutex>;
  using clock = std::chrono::steady_clock;

  thread_ranks(thread_ranks const&) = delete;
  thread_ranks& operator=(thread_ranks const&) = delete;

  int size() const noexcept { return static_cast<int>(changed_.size()); }
  comm::threads_options const& options() const noexcept { return options_; }

  /// Every call that waits or comes throws comm_error. The first failure counts.
  void fail(int rank, std::string_view reason) noexcept {
    auto const held = lock();
    set_failure(rank, rank, {"rank ", std::to_string(rank), " failed: ", reason});
  }
  /// The rank that saw the first failure, or -1.
  int failed_by() const {
    auto const held = lock();
    return failure_ ? failure_->by : -1;
  }

 protected:
  thread_ranks(int ranks, comm::threads_options const& options)
      : options_(options), changed_(static_cast<std::size_t>(ranks)) {}
  ~thread_ranks() = default;

  lock_type lock() const { return lock_type(mutex_); }

  /// Threads of `rank` wait for it until something changes for that rank.
  std::condition_variable& changed(int rank) const { return changed_[static_cast<std::size_t>(rank)]; }

  bool failed() const noexcept { return failure_.has_value(); }
  void throw_if_failed(std::string_view call, int rank) const {
    if (failed()) throw_failure(call, rank);
  }
  [[noreturn]] void throw_failure(std::string_view call, int rank) const {
    std::string const text = call_on_rank(call, rank) + failure_->text;
    if (failure_->timeout) throw comm_timeout(failure_->rank, text);
    throw comm_error(failure_->rank, text);
  }

  /// Fails for `rank`, as the rank `by` has seen.
  void set_failure(int rank, int by, std::initializer_list<std::string_view> text) noexcept {
    if (failed()) return;
    failure_.emplace(failure{rank, by, false, {}});
    for (std::condition_variable& each : changed_) each.notify_all();
    try {
      for (std::string_view const part : text) failure_->text += part;
    } catch (...) {  // a failure without words
    }
  }
  void time_out(std::vector<int> const& silent, int by, std::string_view call) {
    std::string list;
    for (int const rank : silent) list += (list.empty() ? "" : ", ") + std::to_string(rank);
    set_failure(silent.front(), by,
                {silent.size() == 1 ? "rank " : "ranks ", list, " did not come to ", call, " within ",
                 std::to_string(options_.deadline.count()), " ms"});
    failure_->timeout = true;
  }

 private:
  struct failure {
    int rank, by;
    bool timeout;
    std::string text;
  };

  comm::threads_options const options_;
  mutable std::mutex mutex_;
  mutable std::vector<std::condition_variable> changed_;
  std::optional<failure> failure_;
};

}  // namespace pushpull::detail
