/// @file
/// Operations as oneTBB tasks: each runs when those before it on its keys are done, those of high priority first. Those of
/// the communication lane run on a thread of its own.
#pragma once

#include <algorithm>
#include <bit>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <oneapi/tbb/task_arena.h>
#include <oneapi/tbb/task_group.h>
#include <pushpull/config.hpp>
#include <pushpull/detail/thread_sanitizer.hpp>
#include <pushpull/profile/statistics.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/schedule/communication_lane.hpp>
#include <pushpull/schedule/exit_list.hpp>
#include <pushpull/schedule/operation.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Per key, operations run in the order of their submission, readers concurrently; else whenever a thread is free.
/// Threads that wait help. Operations that wait for something outside hold no thread. May be called by several threads.
class task_schedule final : public schedule, private exit_list_entry, private communication_lane::client {
 public:
  task_schedule() : lane_(*this) {}
  ~task_schedule() {
    leave_exit_list();
    drain();
    lane_.stop();
    if (called_) join();  // threads that are about to leave
    observe(&group_);
  }

  /// Takes the operation, whose accesses have been named. One that `is_small` and has nothing to wait for is run by the
  /// caller: waking another thread would cost more.
  /// @throws std::bad_alloc, or std::system_error if a thread cannot be made; before anything has changed
  void submit(operation& op, int priority, bool is_small) {
    expect_outside(*this);
    op.reset(*this, priority);
    bool const computes = op.runs_in() == lane::compute;
    if (!computes) lane_.start();
    if (op.failure_ == nullptr) op.failure_ = std::make_shared<failure>();
    std::unique_lock lock(mutex_);
    make_room();
    op.acquire();
    op.number_ = ++submitted_;
    if (std::has_single_bit(submitted_)) finish_at_exit();  // often enough for what is made between calls
    ++pending_;
    for (access& a : op.accesses_) enter(op, a);
    if (op.unmet_ > 0) return;
    if (is_small && computes) return run(op, lock, stays::no);
    call_threads(push_ready(op));
  }

  void finish(operation& op) override {
    expect_outside(*this);
    std::unique_lock lock(mutex_);
    help_until(lock, [&] { return op.done(); });
  }

  void resume(operation& op) noexcept override {
    std::lock_guard const lock(mutex_);
    call_threads(push_ready(op));
    if (waiting_ > 0) changed_.notify_all();
  }

  /// Returns when all operations on the key are done. @throws what one of them failed with, if nobody was told
  void wait(variable& v) {
    expect_outside(*this);
    std::unique_lock lock(mutex_);
    help_until(lock, [&] { return v.idle(); });
    if (auto const failed = std::exchange(v.failed, nullptr)) {
      lock.unlock();
      failed->tell();
    }
  }

  /// Same as waiting for one key, but for all operations.
  void wait() {
    expect_outside(*this);
    drain();
    std::shared_ptr<failure> first;
    {
      std::lock_guard const lock(mutex_);
      auto const untold =
          std::find_if(failures_.begin(), failures_.end(), [](auto const& f) { return !f->told.exchange(true); });
      if (untold != failures_.end()) first = *untold;
      forget_told();
    }
    if (first != nullptr) std::rethrow_exception(first->error);
  }

  /// Returns when all operations are done, whether or not they failed.
  void drain() {
    std::unique_lock lock(mutex_);
    while (pending_ > 0) {
      if (!ready_.empty()) {
        run_ready(lock, stays::yes);
      } else if (threads_ > 0 && !joined_) {  // takes part in what the others run
        profile::detail::waiting_in const call(counters);
        joined_ = true;
        lock.unlock();
        join();
        lock.lock();
        joined_ = false;
      } else {
        profile::detail::waiting_in const call(counters);
        changed_.wait(lock);
      }
    }
  }

 private:
  /// Whether a thread will look for another operation after this one.
  enum class stays { no, yes };

  void finish_work() noexcept override {
    if (!activity::any()) drain();  // an operation that ends the program is never done
  }

  /// Takes part in what the called threads run, until none is left.
  void join() {
    try {
      arena_.execute([this] { group_.wait(); });
    } catch (...) {  // there is no memory to enter the arena
      group_.wait();
    }
  }

  /// Room for one more operation to become ready and to fail: neither may ask for memory then.
  void make_room() {
    if (ready_.capacity() < pending_ + 1) ready_.reserve(2 * (pending_ + 1));
    if (failures_.capacity() > failures_.size() + pending_) return;
    forget_told();
    if (failures_.capacity() <= failures_.size() + pending_) failures_.reserve(2 * (failures_.size() + pending_ + 1));
  }
  void forget_told() {
    std::erase_if(failures_, [](auto const& f) { return f->told.load(); });
  }

  /// Whether nothing before it in its queue has to be done first: all are readers whose turn has come, and so is it.
  static bool has_turn(access const& a) {
    return a.before == nullptr || (!a.writes && !a.before->writes && a.before->granted);
  }

  /// Puts an operation behind those before it on one key.
  static void enter(operation& op, access& a) {
    variable& v = *a.key;
    if (v.last != nullptr && v.last->owner == &op) {  // it has named the key before
      access& own = *v.last;
      a.key = nullptr;
      if (!a.writes || own.writes) return;
      own.writes = true;
      if (!own.granted || has_turn(own)) return;
      own.granted = false;
      ++op.unmet_;
      return;
    }
    a.owner = &op;
    a.before = v.last;
    (v.last != nullptr ? v.last->after : v.first) = &a;
    v.last = &a;
    a.granted = has_turn(a);
    if (!a.granted) ++op.unmet_;
  }

  /// Takes it out again. @returns how many operations have become ready for threads of oneTBB
  std::size_t leave(access const& a) {
    variable& v = *a.key;
    (a.before != nullptr ? a.before->after : v.first) = a.after;
    (a.after != nullptr ? a.after->before : v.last) = a.before;
    std::size_t ready = 0;
    for (access* next = a.after; next != nullptr && !next->granted && has_turn(*next); next = next->after) {
      next->granted = true;
      if (--next->owner->unmet_ > 0) continue;
      ready += push_ready(*next->owner);
    }
    return ready;
  }

  static bool later(operation const* a, operation const* b) {
    return a->priority_ != b->priority_ ? a->priority_ < b->priority_ : a->number_ > b->number_;
  }
  /// @returns for how many more threads of oneTBB there is work
  std::size_t push_ready(operation& op) {
    if (op.runs_in() == lane::communication) {
      lane_.run(op);
      return 0;
    }
    ready_.push_back(&op);
    std::push_heap(ready_.begin(), ready_.end(), later);
    return 1;
  }

  /// Wakes up to `count` threads, as long as the arena has room for them: each runs operations until none is ready. Where
  /// there is no memory to call one, whoever waits runs them.
  void call_threads(std::size_t count) noexcept {
    if (count == 0) return;
    std::size_t const before = threads_;
    try {
      auto const most = static_cast<std::size_t>(std::max(1, arena_.max_concurrency()));
      for (; count > 0 && threads_ < most; --count) {
        publish(this);
        arena_.enqueue(group_.defer([this]() PUSHPULL_UNSEEN_CLOSURE {
          observe(this);
          run_all_ready();
        }));
        ++threads_;  // the called one waits for the lock
      }
    } catch (...) {
      changed_.notify_all();
    }
    called_ = called_ || threads_ > before;
  }
  /// What a called thread does.
  void run_all_ready() {
    std::unique_lock lock(mutex_);
    while (!ready_.empty()) run_ready(lock, stays::yes);
    --threads_;
    changed_.notify_all();
    publish(&group_);
  }

  void run_ready(std::unique_lock<std::mutex>& lock, stays after) {
    std::pop_heap(ready_.begin(), ready_.end(), later);
    operation& op = *ready_.back();
    ready_.pop_back();
    run(op, lock, after);
  }

  void run(operation& op, std::unique_lock<std::mutex>& lock, stays after) {
    lock.unlock();
    std::exception_ptr error;
    bool waits = false;
    try {
      awaited* event = nullptr;
      {
        activity const running(*this, op.callers_);
        if (op.runs_in() == lane::communication) {
          event = op.advance();
        } else {
          // A thread that waits inside one operation must not begin another, which might take long.
          tbb::this_task_arena::isolate([&] { event = op.advance(); });
        }
      }
      if (event != nullptr) {
        suspend(op, *event);
        waits = true;
      }
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    if (!waits) complete(op, std::move(error), after);  // one that waits may be run by another thread already
  }

  /// Has the operation run again when what it waits for is ready. @throws if a thread that asks cannot be made
  void suspend(operation& op, awaited& event) {
    if (event.will_resume(op)) return;
    lane_.start();
    lane_.ask_for(op);
  }

  void run_in_lane(operation& op) noexcept override {
    std::unique_lock lock(mutex_);
    run(op, lock, stays::no);
  }
  void resume_waiting(operation& op) noexcept override { resume(op); }
  void fail_waiting(operation& op, std::exception_ptr error) noexcept override {
    std::lock_guard const lock(mutex_);
    complete(op, std::move(error), stays::no);
  }

  void complete(operation& op, std::exception_ptr error, stays after) noexcept {
    if (error != nullptr) {
      op.has_failed_ = true;
      op.failure_->error = std::move(error);
      failures_.push_back(op.failure_);
    }
    std::size_t ready = 0;
    for (access const& a : op.accesses_) {
      if (a.key == nullptr) continue;
      ready += leave(a);
      auto& failed = a.key->failed;
      if (failed != nullptr && failed->told) failed.reset();
      if (op.has_failed_ && failed == nullptr) failed = op.failure_;
    }
    op.accesses_.clear();
    counters.take(op.tally_);
    --pending_;
    if (ready > 0) call_threads(after == stays::yes ? ready - 1 : ready);
    op.done_.store(true, std::memory_order_release);
    op.release();  // with the lock held: who waits for an operation of its own may end it as soon as it has the lock
    if (waiting_ > 0 || joined_ || pending_ == 0) changed_.notify_all();
  }

  template <class Condition>
  void help_until(std::unique_lock<std::mutex>& lock, Condition const& condition) {
    while (!condition()) {
      if (!ready_.empty()) {
        run_ready(lock, stays::no);
      } else {
        profile::detail::waiting_in const call(counters);
        ++waiting_;
        changed_.wait(lock);
        --waiting_;
      }
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;  // an operation was completed, or a thread left
  std::vector<operation*> ready_;    // a heap
  std::vector<std::shared_ptr<failure>> failures_;
  std::uint64_t submitted_ = 0;
  std::size_t pending_ = 0;  // submitted and not done
  std::size_t threads_ = 0;  // called and not yet gone
  std::size_t waiting_ = 0;
  bool joined_ = false;
  bool called_ = false;
  communication_lane lane_;
  tbb::task_arena arena_;
  tbb::task_group group_;
};

}  // namespace pushpull::detail
