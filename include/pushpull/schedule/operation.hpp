/// @file
/// Work on keys that is ordered after earlier work on them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/profile/tracing.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/schedule/reentrance.hpp>

namespace pushpull::inline PUSHPULL_ABI {

class completion;

namespace detail {

class operation;

/// An error raised after its call returned. The first caller that waits for the work gets it.
struct failure {
  std::exception_ptr error;
  std::atomic<bool> told{false};

  /// Throws the error unless somebody was told before.
  void tell() {
    if (!told.exchange(true)) std::rethrow_exception(error);
  }
};

struct variable;

/// An operation's place in the queue of a key.
struct access {
  variable* key;
  bool writes;
  bool granted = false;  ///< Nothing before it has to be done first.
  operation* owner = nullptr;
  access* before = nullptr;
  access* after = nullptr;
};

/// Dependency state of one key: the operations on it that are not done, in the order of their submission. Belongs to
/// one schedule.
struct variable {
  access* first = nullptr;
  access* last = nullptr;
  std::shared_ptr<failure> failed;

  bool idle() const { return first == nullptr; }
};

/// Whose threads run an operation.
enum class lane {
  compute,       ///< oneTBB's.
  communication  ///< The schedule's one thread for what is outside of the process: in the order of submission.
};

/// Decides when operations run.
class schedule : public identity {
 public:
  /// Returns when the operation is done; it may be run by the caller.
  virtual void finish(operation& op) = 0;
  /// What the operation waits for may be ready.
  virtual void resume(operation& op) noexcept = 0;

  /// Written by each operation that all processes take part in: these operations run in the order of their submission,
  /// which is the same in every process, whatever their keys and priorities.
  variable collectives;

  /// The work of its operations.
  profile::detail::counters counters;

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

  /// All that may fail for lack of memory or by the user's code, once before the first `run`: changes nothing that a call can
  /// see, or `take_back` undoes it.
  virtual void prepare() {}
  /// Once `prepare` or `run` has thrown: takes back what `prepare` has begun, if it was not run.
  virtual void take_back() noexcept {}
  /// The work itself, or as much of it as need not wait for something outside: it is run again then. What it enqueues on
  /// devices may end later.
  virtual progress run() = 0;
  /// For traces; null for what is no call's work.
  virtual char const* name() const { return nullptr; }
  /// For traces: the keys that it reads or changes.
  virtual void list_keys(profile::detail::key_list&) const {}
  /// Where all of its stages run.
  virtual lane runs_in() const { return lane::compute; }
  /// Whether what `run` enqueued on devices is finished. Once the operation is done, from any thread.
  virtual bool devices_ready() { return true; }
  /// Returns when it is.
  virtual void devices_wait() {}

  /// Before it is submitted: it runs after earlier writers of the key.
  void reads(variable& v) { accesses_.push_back(access{&v, false}); }
  /// Before it is submitted: it runs after earlier writers and readers of the key, and later operations on the key run
  /// after it.
  void writes(variable& v) { accesses_.push_back(access{&v, true}); }

  /// For what it waits for: it may be ready. From any thread.
  void resume() noexcept { owner_->resume(*this); }

  /// Takes back what has been named, where the operation is not submitted after all.
  void forget_accesses() noexcept { accesses_.clear(); }

  /// Before it is submitted: what it enqueues is captured in a graph, in the place of being run.
  void capture(bool on = true) noexcept { is_captured_ = on; }
  bool is_captured() const noexcept { return is_captured_; }

  /// Names it all for another operation, which takes this one's place.
  void move_accesses(operation& to) {
    to.accesses_.insert(to.accesses_.end(), accesses_.begin(), accesses_.end());
    accesses_.clear();
  }

  bool done() const noexcept { return done_.load(std::memory_order_acquire); }
  /// Once it is done.
  failure* failed() const noexcept { return has_failed_ ? failure_.get() : nullptr; }

  void acquire() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
  void release() noexcept {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    forget_accesses();  // of one that was never submitted
    recycle();
  }

 protected:
  /// Nobody refers to it any more.
  virtual void recycle() noexcept = 0;

 private:
  friend class task_schedule;
  friend class immediate_schedule;
  friend class communication_lane;
  friend class pushpull::completion;

  /// As before its first use. @throws std::bad_alloc
  void reset(schedule& owner, int priority) {
    activity::list(callers_);
    owner_ = &owner;
    priority_ = priority;
    unmet_ = 0;
    if (has_failed_) failure_.reset();
    has_failed_ = false;
    is_prepared_ = false;
    event_ = nullptr;
    done_.store(false, std::memory_order_relaxed);
  }

  /// Runs the next stage, if what it waits for is ready. @returns what it waits for now; null if it is done
  awaited* advance() {
    if (event_ != nullptr && !event_->ready()) return event_;
    profile::detail::working_for const counted(tally_);
    char const* const called = name();
    if (called != nullptr) tally_.operations = 1;
    if (auto const* const hook = profile::detail::current_hook(); hook != nullptr && called != nullptr)
      return advance_traced(*hook, called);
    return run_stage();
  }
  awaited* advance_traced(profile::detail::hook const& hook, char const* called) {
    profile::detail::key_list list;
    list_keys(list);
    std::string const keys = std::move(list).text();
    profile::detail::span const traced(&hook, {profile::activity::operation, profile::phase::begin, called, keys});
    return run_stage();
  }
  awaited* run_stage() {
    try {
      if (!is_prepared_) prepare();
      is_prepared_ = true;
      return event_ = run().event();
    } catch (...) {
      take_back();
      throw;
    }
  }

  schedule* owner_ = nullptr;
  std::vector<std::uint64_t> callers_;  // what submitted it
  int priority_ = 0;
  std::uint64_t number_ = 0;  // in the order of submission
  std::size_t unmet_ = 0;     // accesses that are not granted
  std::vector<access> accesses_;
  std::shared_ptr<failure> failure_;  // made before it is needed: a failure must not ask for memory
  bool has_failed_ = false;
  bool is_prepared_ = false;
  bool is_captured_ = false;
  awaited* event_ = nullptr;  // between two stages
  profile::detail::tally tally_;
  operation* next_ = nullptr;  // in a list of the communication lane
  std::atomic<bool> done_{false};
  std::atomic<int> references_{0};
};

}  // namespace detail
}  // namespace pushpull
