/// @file
/// Batches that a background thread prepares while the last ones are used.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/train/data/batch_buffer.hpp>
#include <pushpull/train/data/data_source.hpp>

namespace pushpull::inline PUSHPULL_ABI::train::data {

/// Calls `next` of its source on a thread of its own, some batches ahead. The calls are those that the caller would make, in
/// the same order, and an error is thrown by the `next` that would have thrown it. A batch stays valid until the next call.
/// @tparam S  Owned.
template <DataSource S>
class prefetcher {
 public:
  using batch_type = batch_of<S>;

  /// @param ahead  Batches that may be ready: each is one more copy of a batch in memory. @throws invalid_argument if it is 0
  explicit prefetcher(S source, std::size_t ahead = 2) : source_(std::move(source)), descs_(source_.descs()) {
    pushpull::detail::expects<invalid_argument>(
        ahead > 0, [] { return std::string("prefetcher: at least 1 batch ahead expected, got 0"); });
    buffers_.resize(ahead + 1);
    free_.reserve(ahead + 1);
    for (auto& buffer : buffers_) free_.push_back(&buffer);
    read_place();
    thread_ = std::thread([this] { work(); });
  }
  prefetcher(prefetcher const&) = delete;
  prefetcher& operator=(prefetcher const&) = delete;
  ~prefetcher() {
    {
      std::lock_guard const lock(mutex_);
      stopped_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  /// Waits for the batch if it is not ready. @throws the source's error of this batch; a further call tries again
  std::optional<batch_type> next() {
    std::unique_lock lock(mutex_);
    if (held_ != nullptr) free_.push_back(std::exchange(held_, nullptr));
    if (ended_) return std::nullopt;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !ready_.empty(); });
    item taken = std::move(ready_.front());
    ready_.pop_front();
    if (taken.error) {
      waits_ = false;
      changed_.notify_all();
      std::rethrow_exception(taken.error);
    }
    begun_ = true;
    at_ = taken.after;
    held_ = taken.buffer;
    ended_ = !taken.value.has_value();
    return std::move(taken.value);
  }

  /// Drops the batches that are ready. @throws the source's errors
  void reset() {
    if (!begun()) return;  // the batches that are ready are those of the epoch that would begin
    restart([this] { source_.reset(); });
  }

  source_descs descs() const { return descs_; }
  std::int64_t batches() const
    requires SeekableSource<S>
  {
    return batches_;
  }
  source_position position() const
    requires SeekableSource<S>
  {
    return at_;
  }
  /// @throws the source's errors
  void seek(source_position position)
    requires SeekableSource<S>
  {
    restart([&] { source_.seek(position); });
  }

 private:
  using buffer_type = batch_buffer<typename batch_type::data_type, typename batch_type::label_type>;
  struct item {
    std::optional<batch_type> value;
    buffer_type* buffer = nullptr;
    source_position after{};
    std::exception_ptr error{};
  };

  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return stopped_ || (!waits_ && !paused_ && !free_.empty()); });
      if (stopped_) return;
      buffer_type* const buffer = free_.back();
      free_.pop_back();
      busy_ = true;
      lock.unlock();
      item made = make(*buffer);
      lock.lock();
      busy_ = false;
      waits_ = made.buffer == nullptr;  // until the end or the error has been seen
      if (waits_) free_.push_back(buffer);
      ready_.push_back(std::move(made));
      changed_.notify_all();
    }
  }
  item make(buffer_type& buffer) {
    item made;
    try {
      if (auto const taken = source_.next()) {
        made.value = buffer.copy(*taken);
        made.buffer = &buffer;
      }
      if constexpr (SeekableSource<S>) made.after = source_.position();
    } catch (...) {
      made = item{};
      made.error = std::current_exception();
    }
    return made;
  }

  bool begun() const {
    if constexpr (SeekableSource<S>) return at_.batch > 0;
    return begun_;
  }
  void read_place() {
    if constexpr (SeekableSource<S>) {
      at_ = source_.position();
      batches_ = source_.batches();
    }
  }

  /// `change` of the source while the thread rests; then all is made anew.
  template <class F>
  void restart(F const& change) {
    std::unique_lock lock(mutex_);
    paused_ = true;
    changed_.wait(lock, [this] { return !busy_; });
    try {
      change();
    } catch (...) {
      paused_ = false;
      changed_.notify_all();
      throw;
    }
    read_place();
    for (auto& made : ready_)
      if (made.buffer != nullptr) free_.push_back(made.buffer);
    ready_.clear();
    if (held_ != nullptr) free_.push_back(std::exchange(held_, nullptr));
    paused_ = waits_ = ended_ = begun_ = false;
    changed_.notify_all();
  }

  S source_;  // the thread's, but while it rests
  source_descs descs_;
  source_position at_{};  // the caller's place
  std::int64_t batches_ = 0;
  std::vector<buffer_type> buffers_;
  std::vector<buffer_type*> free_;
  buffer_type* held_ = nullptr;
  std::deque<item> ready_;
  bool begun_ = false, ended_ = false, waits_ = false, paused_ = false, busy_ = false, stopped_ = false;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::thread thread_;
};

}  // namespace pushpull::train::data
