/// @file
/// How much work a store has done: counters that its operations raise, and their values.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <ostream>
#include <string>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::profile {

/// The work of a store on one rank, since the store was made. The difference of two is the work between them.
struct statistics {
  std::int64_t operations = 0;    ///< Calls whose work is done or has failed, and steps of a parameter_store.
  std::int64_t launches = 0;      ///< Loops over elements, per device: passes, the phases before them, encoders.
  std::int64_t bytes = 0;         ///< That these loops read and write, of gradients, masters, states and mirrors.
  std::int64_t copies = 0;        ///< Between devices that do not reach each other's memory.
  std::int64_t copied_bytes = 0;  ///< Of these copies.
  std::int64_t sent_bytes = 0;    ///< In messages to other ranks, those of sums and gathers left out.
  std::chrono::nanoseconds
      waited{};  ///< In which threads waited in calls of the store; they may have helped with a pass.

  statistics& operator-=(statistics const& other) {
    operations -= other.operations;
    launches -= other.launches;
    bytes -= other.bytes;
    copies -= other.copies;
    copied_bytes -= other.copied_bytes;
    sent_bytes -= other.sent_bytes;
    waited -= other.waited;
    return *this;
  }
  friend statistics operator-(statistics a, statistics const& b) { return a -= b; }
  friend bool operator==(statistics const&, statistics const&) = default;
};

/// "3 operations, 6 launches of 1200 bytes, 0 copies of 0 bytes, 0 bytes sent, waited 0.010 ms"
inline std::string to_string(statistics const& s) {
  std::array<char, 32> waited{};
  std::snprintf(waited.data(), waited.size(), "%.3f", std::chrono::duration<double, std::milli>(s.waited).count());
  return std::to_string(s.operations) + " operations, " + std::to_string(s.launches) + " launches of " +
         std::to_string(s.bytes) + " bytes, " + std::to_string(s.copies) + " copies of " +
         std::to_string(s.copied_bytes) + " bytes, " + std::to_string(s.sent_bytes) + " bytes sent, waited " +
         waited.data() + " ms";
}
inline std::ostream& operator<<(std::ostream& out, statistics const& s) { return out << to_string(s); }

namespace detail {

/// The work of one operation, which one thread at a time does.
struct tally {
  std::int64_t operations = 0, launches = 0, bytes = 0, copies = 0, copied_bytes = 0, sent_bytes = 0;
};

/// The work of all operations of a store that are done, and the time that threads waited for them.
class counters {
 public:
  /// Adds what an operation has done, and clears it. Called by one thread at a time.
  void take(tally& done) noexcept {
    add(operations_, done.operations);
    add(launches_, done.launches);
    add(bytes_, done.bytes);
    add(copies_, done.copies);
    add(copied_bytes_, done.copied_bytes);
    add(sent_bytes_, done.sent_bytes);
    done = {};
  }
  void add_wait(std::chrono::nanoseconds time) noexcept { waited_.fetch_add(time.count(), std::memory_order_relaxed); }

  statistics values() const {
    return {value(operations_),
            value(launches_),
            value(bytes_),
            value(copies_),
            value(copied_bytes_),
            value(sent_bytes_),
            std::chrono::nanoseconds(value(waited_))};
  }

 private:
  using number = std::atomic<std::int64_t>;

  /// Faster than an atomic addition, which one writer at a time does not need.
  static void add(number& to, std::int64_t amount) noexcept {
    if (amount != 0) to.store(value(to) + amount, std::memory_order_relaxed);
  }
  static std::int64_t value(number const& x) noexcept { return x.load(std::memory_order_relaxed); }

  number operations_{0}, launches_{0}, bytes_{0}, copies_{0}, copied_bytes_{0}, sent_bytes_{0}, waited_{0};
};

/// That of the operation that this thread runs, or null.
inline constinit thread_local tally* current_tally = nullptr;

/// While it lives, the thread works for an operation.
class working_for {
 public:
  explicit working_for(tally& done) noexcept : before_(current_tally) { current_tally = &done; }
  working_for(working_for const&) = delete;
  working_for& operator=(working_for const&) = delete;
  ~working_for() { current_tally = before_; }

 private:
  tally* before_;
};

/// While it lives, the thread waits in a call of a store.
class waiting_in {
 public:
  explicit waiting_in(counters& store) noexcept : counters_(store), begin_(std::chrono::steady_clock::now()) {}
  waiting_in(waiting_in const&) = delete;
  waiting_in& operator=(waiting_in const&) = delete;
  ~waiting_in() {
    counters_.add_wait(std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - begin_));
  }

 private:
  counters& counters_;
  std::chrono::steady_clock::time_point begin_;
};

}  // namespace detail
}  // namespace pushpull::profile
