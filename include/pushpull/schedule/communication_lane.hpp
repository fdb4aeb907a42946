/// @file
/// The thread that speaks to what is outside of the process, and that asks whether what operations wait for has happened.
#pragma once

#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/schedule/backoff.hpp>
#include <pushpull/schedule/operation.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Runs operations one at a time, in the order of their submission, on a thread that is none of oneTBB's. Between them it
/// asks for others, of any lane, whether their events are ready. Sleeps while there is nothing to do; does not exist
/// before it is needed. Never allocates but for `start`.
class communication_lane {
 public:
  /// What the lane calls, holding no lock.
  class client {
   public:
    virtual void run_in_lane(operation& op) noexcept = 0;
    virtual void resume_waiting(operation& op) noexcept = 0;
    /// Its event threw.
    virtual void fail_waiting(operation& op, std::exception_ptr error) noexcept = 0;

   protected:
    ~client() = default;
  };

  explicit communication_lane(client& owner) : client_(owner) {}
  communication_lane(communication_lane const&) = delete;
  communication_lane& operator=(communication_lane const&) = delete;
  ~communication_lane() { stop(); }

  /// Makes the thread, unless there is one. @throws std::system_error, std::bad_alloc
  void start() {
    std::lock_guard const lock(mutex_);
    if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
  }
  /// Ends the thread. No operation is left.
  void stop() {
    {
      std::lock_guard const lock(mutex_);
      stops_ = true;
    }
    changed_.notify_one();
    if (thread_.joinable()) thread_.join();
  }

  /// Runs the operation in its turn. After `start`.
  void run(operation& op) noexcept {
    std::lock_guard const lock(mutex_);
    operation** place = &ready_;
    while (*place != nullptr && (*place)->number_ < op.number_) place = &(*place)->next_;
    op.next_ = std::exchange(*place, &op);
    changed_.notify_one();
  }
  /// Asks again and again whether the operation's event is ready. After `start`.
  void ask_for(operation& op) noexcept {
    std::lock_guard const lock(mutex_);
    op.next_ = std::exchange(arrived_, &op);
    changed_.notify_one();
  }

 private:
  bool has_news() const { return ready_ != nullptr || arrived_ != nullptr || stops_; }

  void work() {
    operation* waiting = nullptr;
    backoff pause;
    std::unique_lock lock(mutex_);
    for (;;) {
      while (arrived_ != nullptr) {
        operation* const op = std::exchange(arrived_, arrived_->next_);
        op->next_ = std::exchange(waiting, op);
        pause.reset();
      }
      operation* const op = ready_;
      if (op != nullptr) ready_ = op->next_;
      if (op == nullptr && waiting == nullptr) {
        if (stops_) return;
        changed_.wait(lock, [&] { return has_news(); });
        continue;
      }
      lock.unlock();
      if (op != nullptr) client_.run_in_lane(*op);
      bool const any = ask(waiting) || op != nullptr;
      if (any) pause.reset();
      std::chrono::microseconds const wait = any ? std::chrono::microseconds{} : pause.next();
      if (wait.count() == 0) std::this_thread::yield();
      lock.lock();
      if (wait.count() > 0) changed_.wait_for(lock, wait, [&] { return has_news(); });
    }
  }

  /// Takes out of the list what need not wait any longer. @returns whether there was any
  bool ask(operation*& waiting) {
    bool any = false;
    for (operation** place = &waiting; *place != nullptr;) {
      operation& op = **place;
      operation* const next = op.next_;
      std::exception_ptr error;
      bool ready = false;
      try {
        ready = op.event_->ready();
      } catch (...) {
        error = std::current_exception();
      }
      if (!ready && error == nullptr) {
        place = &op.next_;
        continue;
      }
      any = true;
      *place = next;
      if (error != nullptr) {
        client_.fail_waiting(op, std::move(error));
      } else {
        client_.resume_waiting(op);
      }
    }
    return any;
  }

  client& client_;
  std::mutex mutex_;
  std::condition_variable changed_;
  operation* ready_ = nullptr;    // a list in the order of submission
  operation* arrived_ = nullptr;  // a list of those that wait since the thread looked last
  bool stops_ = false;
  std::thread thread_;
};

}  // namespace pushpull::detail
