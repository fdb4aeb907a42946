/// @file
/// Work on keys that is ordered after earlier work on them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI {

class completion;

namespace detail {

class operation;

/// An error of work whose call had returned. Who waits first for what failed is told.
struct failure {
  std::exception_ptr error;
  std::atomic<bool> told{false};

  /// Throws the error unless somebody was told before.
  void tell() {
    if (!told.exchange(true)) std::rethrow_exception(error);
  }
};

/// What the operations on one key have to agree on: who of those that are not done writes it last, and who reads it
/// since. Belongs to one schedule.
struct variable {
  operation* writer = nullptr;
  std::vector<operation*> readers;
  std::shared_ptr<failure> failed;

  bool idle() const { return writer == nullptr && readers.empty(); }
};

/// Decides when operations run.
class schedule {
 public:
  /// Returns when the operation is done; it may be run by the caller.
  virtual void finish(operation& op) = 0;

 protected:
  ~schedule() = default;
};

/// One call's work. It lives until the schedule and every handle have released it, and is then recycled.
class operation {
 public:
  operation() = default;
  operation(operation const&) = delete;
  operation& operator=(operation const&) = delete;
  virtual ~operation() = default;

  /// The work itself. What it enqueues on devices may end later.
  virtual void run() = 0;
  /// Whether what `run` enqueued on devices is finished. Called by one thread at a time.
  virtual bool devices_ready() { return true; }
  /// Returns when it is.
  virtual void devices_wait() {}

  /// Before it is submitted: it runs after earlier writers of the key.
  void reads(variable& v) { accesses_.push_back({&v, false}); }
  /// Likewise, and after its earlier readers; later operations on the key run after this one.
  void writes(variable& v) { accesses_.push_back({&v, true}); }

  bool done() const noexcept { return done_.load(std::memory_order_acquire); }
  /// Once it is done.
  failure* failed() const noexcept { return failed_.get(); }

  void acquire() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
  void release() noexcept {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) recycle();
  }

 protected:
  /// Nobody refers to it any more.
  virtual void recycle() noexcept = 0;

 private:
  friend class task_schedule;
  friend class immediate_schedule;
  friend class pushpull::completion;

  struct access {
    variable* key;
    bool writes;
  };

  /// As before its first use.
  void reset(schedule& owner, int priority) {
    owner_ = &owner;
    priority_ = priority;
    unmet_ = 0;
    failed_.reset();
    done_.store(false, std::memory_order_relaxed);
  }

  schedule* owner_ = nullptr;
  int priority_ = 0;
  std::uint64_t number_ = 0;  // in the order of submission
  std::size_t unmet_ = 0;     // operations that have to be done first
  std::vector<access> accesses_;
  std::vector<operation*> successors_;
  std::shared_ptr<failure> failed_;
  std::atomic<bool> done_{false};
  std::atomic<int> references_{0};
};

/// The schedule whose operation runs on this thread.
inline thread_local schedule const* running_schedule = nullptr;

/// Marks a thread as running an operation of a schedule.
class running_mark {
 public:
  explicit running_mark(schedule const& owner) : before_(running_schedule) { running_schedule = &owner; }
  running_mark(running_mark const&) = delete;
  running_mark& operator=(running_mark const&) = delete;
  ~running_mark() { running_schedule = before_; }

 private:
  schedule const* before_;
};

/// @throws invalid_argument on a thread that runs an operation of this schedule
inline void expect_outside(schedule const& owner) {
  expects<invalid_argument>(running_schedule != &owner, [] {
    return std::string("store: an updater called the store that called it");
  });
}

}  // namespace detail
}  // namespace pushpull
