/// @file
/// Requests of a worker to servers, and groups of them that are waited for together.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/schedule/announced_event.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

class request_group;

/// A request to one server, and where its answer goes. It stays where it is until its group is finished.
struct request {
  message_header header;  ///< Without worker, job, incarnation and sequence, which the link adds.
  std::size_t server = 0;
  std::span<std::byte const> payload = {};  ///< Borrowed: read until the group is finished.
  std::span<std::byte> values = {};         ///< Where the answer's payload is to be written, all of it.
  std::string* text = nullptr;              ///< Or where it is appended.
  bool* acknowledged = nullptr;             ///< Set to true when the server has done the request.
  message_header answer = {};               ///< The header of the answer.
  std::exception_ptr error = nullptr;       ///< If the server, or the link, refused the request.
  request_group* group = nullptr;
};

/// Requests that are waited for together.
class request_group {
 public:
  request_group() = default;
  request_group(request_group const&) = delete;
  request_group& operator=(request_group const&) = delete;

  std::vector<request> requests;

  /// Before they are submitted. An operation waits for `event`, a thread for `wait`.
  void begin() {
    for (request& r : requests) r.group = this;
    error_ = nullptr;
    if (tells_each) finished_.reserve(requests.size());
    open_ = requests.size() + 1;
    done_ = false;
    event.reset();
  }
  /// One more thing to wait for: memory that is lent.
  void open() noexcept { open_.fetch_add(1); }
  /// One thing fewer. The last one ends the wait, and perhaps the group.
  void close() noexcept {
    if (open_.fetch_sub(1) != 1) return;
    std::exception_ptr const error = error_;
    {
      std::lock_guard const lock(mutex_);
      done_ = true;
      changed_.notify_all();
      if (!is_operation) return;
    }
    if (error != nullptr) {
      event.fail(error);
    } else {
      event.set();
    }
  }
  /// The first error counts. Before the request is closed; by the link's thread.
  void fail(request& r, std::exception_ptr const& error) noexcept {
    r.error = error;
    if (error_ == nullptr) error_ = error;
  }
  /// A request is answered, or has failed. By the link's thread.
  void finish(request& r) noexcept {
    if (tells_each) {
      std::lock_guard const lock(mutex_);
      finished_.push_back(&r);  // has room
      changed_.notify_all();
    }
    close();
  }
  /// The next request that is answered or has failed, in this order; null if none is now, or, with `waits`, if there is no
  /// further one: then the wait is over. Needs tells_each.
  request* next(bool waits) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !waits || taken_ < finished_.size() || done_; });
    return taken_ < finished_.size() ? finished_[taken_++] : nullptr;
  }
  /// Returns when all are answered. @throws the first error
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_; });
    if (error_ != nullptr) std::rethrow_exception(error_);
  }

  bool is_operation = false;  ///< An operation waits for `event`.
  bool tells_each = false;    ///< A thread takes requests by `next`, when each is finished.
  pushpull::detail::announced_event event;

 private:
  std::atomic<std::size_t> open_{0};
  std::exception_ptr error_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  std::vector<request*> finished_;
  std::size_t taken_ = 0;  // of them
};

}  // namespace pushpull::remote::detail
