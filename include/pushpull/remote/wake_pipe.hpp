/// @file
/// A file descriptor by which a thread that polls is woken.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// Readable from `wake` until `rest`.
class wake_pipe {
 public:
  /// @throws comm_error if there are no descriptors left
  wake_pipe() {
    if (::pipe2(ends_.data(), O_NONBLOCK | O_CLOEXEC) != 0)
      throw comm_error(-1, std::string("remote_store: pipe2: ") + std::strerror(errno));
  }
  wake_pipe(wake_pipe const&) = delete;
  wake_pipe& operator=(wake_pipe const&) = delete;
  ~wake_pipe() {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }

  int descriptor() const noexcept { return ends_[0]; }
  /// From any thread.
  void wake() noexcept {
    if (awake_.exchange(true)) return;
    char const byte = 0;
    while (::write(ends_[1], &byte, 1) < 0 && errno == EINTR) {
    }
  }
  /// By the thread that polls, before it looks for what it was woken for.
  void rest() noexcept {
    char bytes[16];
    while (::read(ends_[0], bytes, sizeof bytes) > 0) {
    }
    awake_ = false;
  }

 private:
  std::array<int, 2> ends_{};
  std::atomic<bool> awake_{false};
};

}  // namespace pushpull::remote::detail
