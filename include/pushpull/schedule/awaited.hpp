/// @file
/// Something outside of a store that an operation waits for: a message, an event of a device.
#pragma once

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

class operation;

/// Tells when an operation that waits can go on. Must stay until it has told so and the operation has been run again.
class awaited {
 public:
  awaited() = default;
  awaited(awaited const&) = delete;
  awaited& operator=(awaited const&) = delete;

  /// Whether the operation can go on; true stays true. One thread at a time asks. @throws what the operation fails with
  virtual bool ready() = 0;
  /// Whether it will call `op.resume()` once it is ready, perhaps before this returns. If not, schedules ask `ready`
  /// again and again.
  virtual bool will_resume(operation&) noexcept { return false; }

 protected:
  ~awaited() = default;
};

/// The result of running an operation.
class [[nodiscard]] progress {
 public:
  /// The operation is done.
  static progress done() noexcept { return progress(nullptr); }
  /// The operation is to be run again when `event` is ready. Until then it holds no thread.
  static progress waiting_for(awaited& event) noexcept { return progress(&event); }

  /// Null if the operation is done.
  awaited* event() const noexcept { return event_; }

 private:
  explicit progress(awaited* event) noexcept : event_(event) {}

  awaited* event_;
};

}  // namespace pushpull::detail
