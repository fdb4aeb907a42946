/// @file
/// Calls of a store from within what it calls: refused, where they would wait for themselves.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Tells schedules and locks apart, also from those that are gone.
class identity {
 public:
  identity() : number_(last_.fetch_add(1, std::memory_order_relaxed) + 1) {}
  identity(identity const&) = delete;
  identity& operator=(identity const&) = delete;

  std::uint64_t number() const noexcept { return number_; }

 private:
  static inline std::atomic<std::uint64_t> last_{0};
  std::uint64_t number_;
};

/// The callers of the user's code in which this thread is, directly or through operations of other stores: the schedule
/// whose operation runs, or the store whose call holds a lock.
class activity {
 public:
  /// @param callers  Those of the thread that submitted the operation.
  explicit activity(identity const& of, std::vector<std::uint64_t> const& callers = none())
      : number_(of.number()), callers_(callers), before_(innermost_) {
    innermost_ = this;
  }
  activity(activity const&) = delete;
  activity& operator=(activity const&) = delete;
  ~activity() {
    activity const** link = &innermost_;
    while (*link != this) link = &(*link)->before_;  // those of several stores end in any order
    *link = before_;
  }

  static bool includes(identity const& other) {
    for (activity const* a = innermost_; a != nullptr; a = a->before_)
      if (a->number_ == other.number() ||
          std::find(a->callers_.begin(), a->callers_.end(), other.number()) != a->callers_.end())
        return true;
    return false;
  }

  /// Whether the user's code is called on this thread.
  static bool any() { return innermost_ != nullptr; }

  /// Writes all that this thread is in. In the steady state of a training step there is nothing. @throws std::bad_alloc
  static void list(std::vector<std::uint64_t>& to) {
    to.clear();
    for (activity const* a = innermost_; a != nullptr; a = a->before_) {
      to.push_back(a->number_);
      to.insert(to.end(), a->callers_.begin(), a->callers_.end());
    }
  }

 private:
  static std::vector<std::uint64_t> const& none() {
    static std::vector<std::uint64_t> const empty;
    return empty;
  }

  static inline thread_local activity const* innermost_ = nullptr;
  std::uint64_t number_;
  std::vector<std::uint64_t> const& callers_;
  mutable activity const* before_;
};

/// @throws invalid_argument in the user's code that an operation of this schedule runs
inline void expect_outside(identity const& schedule) {
  expects<invalid_argument>(!activity::includes(schedule),
                            [] { return std::string("store: an updater called the store that called it"); });
}

/// @throws invalid_argument in a range or predicate that a call of the same store reads
inline void expect_unread(identity const& store) {
  expects<invalid_argument>(!activity::includes(store), [] {
    return std::string("store: a range or a predicate used the store whose call reads it");
  });
}

/// A mutex under which a store reads what the user gave: ranges, predicates.
template <class Mutex>
struct guarded_mutex {
  mutable Mutex mutex;
  identity id;
};

/// Locks it. @tparam Lock  std::shared_lock, std::unique_lock or std::lock_guard.
template <template <class> class Lock, class Mutex>
class guard {
 public:
  /// @throws invalid_argument in a range or predicate that is read under this mutex
  explicit guard(guarded_mutex<Mutex> const& m) : lock_(outside(m)), activity_(m.id) {}

 private:
  static Mutex& outside(guarded_mutex<Mutex> const& m) {
    expect_unread(m.id);
    return m.mutex;
  }

  Lock<Mutex> const lock_;
  activity const activity_;
};

using shared_guard = guard<std::shared_lock, std::shared_mutex>;
using unique_guard = guard<std::unique_lock, std::shared_mutex>;

}  // namespace pushpull::detail
