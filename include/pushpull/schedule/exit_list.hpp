/// @file
/// The end of the program, for work that is under way.
#pragma once

#include <atomic>
#include <cstdlib>
#include <mutex>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

class exit_list_entry;

/// Those whose work is finished at the end. Never destroyed.
struct exit_list {
  std::mutex mutex;
  exit_list_entry* first = nullptr;
};
inline constinit exit_list all_at_exit;

/// Something with work, which may be a static object, as may be the memory that the work reads and writes: that is often
/// gone before the store, whose destructor would wait too late. Work is finished when `exit` begins to destroy static
/// objects: all those that were made before `finish_at_exit`.
class exit_list_entry {
 public:
  exit_list_entry() = default;
  exit_list_entry(exit_list_entry const&) = delete;
  exit_list_entry& operator=(exit_list_entry const&) = delete;

 protected:
  ~exit_list_entry() = default;

  /// May be called again, for objects that were made since.
  void finish_at_exit() noexcept {
    {
      std::lock_guard const lock(all_at_exit.mutex);
      if (!listed_) {
        listed_ = true;
        next_ = all_at_exit.first;
        if (next_ != nullptr) next_->before_ = this;
        all_at_exit.first = this;
      }
    }
    std::atexit(&finish_all);  // where it finds no memory, destructors wait
  }

  /// In the destructor, before anything else ends.
  void leave_exit_list() noexcept {
    std::unique_lock lock(all_at_exit.mutex);
    if (!listed_) return;
    while (in_use_) {
      lock.unlock();
      in_use_.wait(true);
      lock.lock();
    }
    (before_ != nullptr ? before_->next_ : all_at_exit.first) = next_;
    if (next_ != nullptr) next_->before_ = before_;
  }

  /// Returns when no work is left.
  virtual void finish_work() noexcept = 0;

 private:
  static void finish_all() {
    std::unique_lock lock(all_at_exit.mutex);
    for (exit_list_entry* e = all_at_exit.first; e != nullptr; e = e->next_) {
      e->in_use_ = true;
      lock.unlock();
      e->finish_work();
      lock.lock();
      e->in_use_ = false;
      e->in_use_.notify_all();
    }
  }

  exit_list_entry* before_ = nullptr;
  exit_list_entry* next_ = nullptr;
  bool listed_ = false;
  std::atomic<bool> in_use_{false};
};

}  // namespace pushpull::detail
